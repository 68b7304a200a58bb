"""Four cameras in one process: a frame of each, and the persons of all of them in one batch.

python examples/cameras.py 0 1 rtsp://camera/3 clip.mp4       # numbers, URLs or files
"""

import sys
from collections.abc import Iterator

import cv2

from sdk import PoseEstimator
from sdk.media.figures import rendered_clip


def frames_from(name: str) -> Iterator:
    capture = cv2.VideoCapture(int(name) if name.isdigit() else name)
    while (taken := capture.read())[0]:
        yield taken[1]


def main(arguments: list[str]) -> None:
    if arguments:
        cameras = [frames_from(name) for name in arguments]
    else:
        sizes = [(360, 480), (480, 640), (240, 320), (384, 384)]
        cameras = [(frame for frame, _ in rendered_clip(seed, 12, size)) for seed, size in enumerate(sizes)]
    with PoseEstimator() as estimate:
        for frames in zip(*cameras, strict=False):
            boxes = [[[0, 0, frame.shape[1], frame.shape[0]]] for frame in frames]  # of each frame its persons'
            for number, poses in enumerate(estimate.many(list(frames), boxes)):
                print(f"camera {number}: {len(poses)} persons, best joint {poses.scores.max():.3f}")


if __name__ == "__main__":
    main(sys.argv[1:])
