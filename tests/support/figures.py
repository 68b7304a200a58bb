"""A standing person of 133 joints, drawn by hand: what whole-body pictures are tested on.

keypoints = standing_person(corner_xy=(20, 10), height_px=400)      # 1 x 133 x 2
"""

import numpy as np

BODY = {  # of a height of 1, x to the right of the middle
    "nose": (0.0, 0.10), "left_eye": (0.02, 0.085), "right_eye": (-0.02, 0.085), "left_ear": (0.045, 0.095),
    "right_ear": (-0.045, 0.095), "left_shoulder": (0.1, 0.22), "right_shoulder": (-0.1, 0.22),
    "left_elbow": (0.17, 0.36), "right_elbow": (-0.19, 0.33), "left_wrist": (0.2, 0.48), "right_wrist": (-0.27, 0.24),
    "left_hip": (0.065, 0.52), "right_hip": (-0.065, 0.52), "left_knee": (0.075, 0.74), "right_knee": (-0.08, 0.74),
    "left_ankle": (0.08, 0.94), "right_ankle": (-0.085, 0.94),
}  # fmt: skip
FEET = ((0.11, 0.99), (0.13, 0.985), (0.07, 0.965), (-0.12, 0.99), (-0.14, 0.985), (-0.075, 0.965))
LENGTHS = (0.6, 0.95, 1.0, 0.92, 0.75)  # of the fingers, thumb first


def standing_person(corner_xy, height_px):
    """1 x 133 x 2 float32, frame pixels."""
    points = [*BODY.values(), *FEET, *_face(), *_hand(BODY["left_wrist"], 100), *_hand(BODY["right_wrist"], -100)]
    scaled = np.array(points, np.float32) * height_px
    return (scaled + np.array(corner_xy, np.float32) + np.array([0.32 * height_px, 0], np.float32))[None]


def _face():
    """68 points: jaw, brows, nose, eyes, mouth, about the nose."""
    centre, width, height = np.array(BODY["nose"]), 0.042, 0.055

    def ring(middle, radii, count, first=0.0, last=2 * np.pi):
        angles = np.linspace(first, last, count, endpoint=last - first < 6)
        return [tuple(centre + (middle + radii * np.array([np.cos(a), np.sin(a)])) * (width, height)) for a in angles]

    jaw = ring(np.array([0, 0]), np.array([1, 1.1]), 17, np.pi, 0)
    brows = [p for x in (-0.5, 0.5) for p in ring(np.array([x, -0.45]), np.array([0.35, 0.2]), 5, np.pi, 2 * np.pi)]
    nose = [tuple(centre + np.array([0, y]) * (width, height)) for y in (-0.3, -0.15, 0, 0.15)]
    nose += [tuple(centre + np.array([x, 0.25]) * (width, height)) for x in (-0.2, -0.1, 0, 0.1, 0.2)]
    eyes = [p for x in (-0.5, 0.5) for p in ring(np.array([x, -0.25]), np.array([0.22, 0.1]), 6, np.pi)]
    mouth = ring(np.array([0, 0.6]), np.array([0.45, 0.2]), 12, np.pi) + ring(
        np.array([0, 0.6]), np.array([0.3, 0.1]), 8
    )
    return [*jaw, *brows, *nose, *eyes, *mouth]


def _hand(wrist, turned_deg):
    """21 points: the wrist, then four joints a finger, spread like a fan."""
    points = [np.array(wrist)]
    for finger, length in enumerate(LENGTHS):
        angle = np.radians(turned_deg + 28 * (finger - 2))
        along = 0.095 * length * np.array([np.cos(angle), np.sin(angle)])
        points += [points[0] + along * share for share in (0.45, 0.65, 0.83, 1.0)]
    return [tuple(point) for point in points]
