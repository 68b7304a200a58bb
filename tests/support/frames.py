"""Seeded frames and boxes for the estimator's tests.

poses = estimate(noise(), random_boxes(3))
"""

import numpy as np


def noise(seed=0, size_hw=(120, 160)):
    return np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), np.uint8)


def random_boxes(count, seed=0):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-20, 100, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(4, 90, (count, 2))], axis=1).astype(np.float32)
