"""Four cameras in one process: the persons of all of them share batches, and none waits for the slowest.

python examples/cameras.py 0 1 rtsp://camera/3 clip.mp4       # numbers, URLs or files
"""

import sys

from sdk import Cameras
from sdk.media.figures import rendered_clip


def main(arguments: list[str]) -> None:
    sizes = [(360, 480), (480, 640), (240, 320), (384, 384)]
    clips = [(frame for frame, _ in rendered_clip(seed, 12, size)) for seed, size in enumerate(sizes)]
    with Cameras(arguments or clips) as cameras:  # detector="rtmdet.onnx" finds several persons in each
        for camera, _, frame, poses in cameras:
            best = poses.scores.max(initial=0)
            print(f"camera {camera}: {len(poses)} persons in frame {frame.number}, best joint {best:.3f}")


if __name__ == "__main__":
    main(sys.argv[1:])
