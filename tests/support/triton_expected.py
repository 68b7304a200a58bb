"""Frames, boxes and what `PoseEstimator` makes of them, for `tests/triton.sh`.

python tests/support/triton_expected.py ENGINE OUT.npz
"""

import sys

import numpy as np

from sdk import PoseEstimator, ops
from sdk.geometry import crop_affines
from sdk.media.figures import rendered_figure
from sdk.runtime.opening import open_session

SIZES_HW = ((240, 320), (360, 480), (200, 200), (240, 320))


def main(engine, path):
    arrays = {}
    with PoseEstimator(engine, device="cpu") as estimate:
        for index, size_hw in enumerate(SIZES_HW):
            frame, joints = rendered_figure(np.random.default_rng(2000 + index), size_hw)
            low, high = joints.min(axis=0), joints.max(axis=0)
            boxes = np.array([[*low, *high], [0, 0, size_hw[1], size_hw[0]], [*(low - 9), *(high + 5)]], np.float32)
            boxes = boxes[: 1 + index % 3]
            for name, given in (("", boxes), ("whole_", None)):
                poses = estimate(frame, given)
                arrays |= {f"{name}keypoints{index}": poses.keypoints, f"{name}scores{index}": poses.scores}
            arrays |= {f"frame{index}": frame, f"boxes{index}": boxes}
        recipe = estimate.recipe
    frame, affines = arrays["frame0"], crop_affines(arrays["boxes2"], recipe.input.size_hw, recipe.input.box_padding)
    chosen = recipe.input
    crops = ops.crop(frame, affines, chosen.size_hw, mean=chosen.mean, std=chosen.std, channel_order=chosen.colour)
    with open_session(engine, "cpu") as session:
        x, y = session.run(crops)
    joints = ops.decode(x, y, affines, recipe.output.split_ratio, score=recipe.output.score)
    arrays |= {"simcc_x": x, "simcc_y": y, "affines": affines, "joints": joints}
    np.savez(path, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
