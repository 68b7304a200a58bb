"""A camera that is faster than the network: always the newest frame, never an older one, and how many were passed over.

python examples/camera.py 0                                   # a camera's number or a stream's URL
"""

import sys
from collections.abc import Iterator
from time import sleep

from sdk import PoseEstimator, open_source
from sdk.media.figures import rendered_clip


def simulated() -> Iterator:
    """A camera of 90 frames a second."""
    for frame, _ in rendered_clip(seed=1, frames=60):
        sleep(1 / 90)
        yield frame


def main(arguments: list[str]) -> None:
    source = arguments[0] if arguments else simulated()
    with PoseEstimator(tracker=True) as estimate, open_source(source, live=True) as frames:
        for frame in frames:
            poses = estimate(frame.picture, time_ms=frame.time_ms)
            took, passed_over = poses.timings_ms["total"], frames.counts.dropped
            print(f"{len(poses)} persons, {took:.1f} ms, {frame.age_ms:.0f} ms old, {passed_over} frames passed over")


if __name__ == "__main__":
    main(sys.argv[1:])
