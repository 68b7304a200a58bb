"""The persons of a picture, drawn.

python examples/picture.py street.jpg 410,90,560,480          # boxes as x1,y1,x2,y2; none: the whole picture
"""

import sys

import cv2

from sdk import PoseEstimator
from sdk.media.figures import rendered_clip


def main(arguments: list[str]) -> None:
    frame = cv2.imread(arguments[0]) if arguments else next(rendered_clip(seed=1, frames=1))[0]
    boxes = [[float(side) for side in box.split(",")] for box in arguments[1:]] or None
    with PoseEstimator() as estimate:
        poses = estimate(frame, boxes)
    for person, scores in zip(poses.keypoints, poses.scores, strict=True):
        for name, (x, y), score in zip(poses.skeleton.joints, person, scores, strict=True):
            print(f"{name:16} {x:7.1f} {y:7.1f}   {score:.3f}")
    cv2.imwrite("poses.png", poses.draw(frame, boxes=True))


if __name__ == "__main__":
    main(sys.argv[1:])
