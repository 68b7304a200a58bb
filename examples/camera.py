"""A camera that is faster than the network: always the newest frame, never an older one, and how many were passed over.

python examples/camera.py 0                                   # a camera's number or a stream's URL
"""

import sys
from collections.abc import Callable
from threading import Condition, Thread
from time import sleep

import cv2

from sdk import PoseEstimator
from sdk.media.figures import rendered_clip


class Newest:
    """The newest thing that a source gave; a thread of its own reads."""

    def __init__(self, read: Callable[[], object]) -> None:
        self._read = read
        self._changed = Condition()
        self._count, self._taken, self._thing, self._ended = 0, 0, None, False
        Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        while (thing := self._read()) is not None:
            with self._changed:
                self._count, self._thing = self._count + 1, thing
                self._changed.notify()
        with self._changed:
            self._ended = True
            self._changed.notify()

    def take(self) -> tuple[int, object] | None:
        """(how many were passed over, the newest), or None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._count > self._taken or self._ended)
            if self._count == self._taken:
                return None
            passed_over, self._taken = self._count - self._taken - 1, self._count
            return passed_over, self._thing


def reader(name: str | None) -> Callable[[], object]:
    """A function that gives the next frame, or None at the end."""
    if name is None:
        clip = (frame for frame, _ in rendered_clip(seed=1, frames=60))
        return lambda: (sleep(1 / 240), next(clip, None))[1]
    capture = cv2.VideoCapture(int(name) if name.isdigit() else name)
    return lambda: capture.read()[1]


def main(arguments: list[str]) -> None:
    newest = Newest(reader(arguments[0] if arguments else None))
    with PoseEstimator(tracker=True) as estimate:
        while (taken := newest.take()) is not None:
            passed_over, frame = taken
            poses = estimate(frame)
            print(f"{len(poses)} persons, {poses.timings_ms['total']:.1f} ms, {passed_over} frames passed over")


if __name__ == "__main__":
    main(sys.argv[1:])
