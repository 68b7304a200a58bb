"""A video with a tracker: each person keeps an id, and the drawn video is written beside it.

python examples/video.py clip.mp4 rtmdet-nano-person.onnx     # a person detector's ONNX file; none: one person
"""

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from sdk import PoseEstimator, open_source
from sdk.media.figures import rendered_clip
from sdk.media.sinks import VideoFile


def frames_from(path: str | None) -> Iterator:
    """Pictures, and when each is shown in milliseconds."""
    if path is None:
        yield from ((frame, 1e3 * n / 24) for n, (frame, _) in enumerate(rendered_clip(seed=1, frames=48)))
        return
    with open_source(path) as frames:
        yield from ((frame.picture, frame.time_ms) for frame in frames)


def main(arguments: list[str]) -> None:
    path, detector, *_ = [*arguments, None, None]
    with (
        PoseEstimator(detector=detector, tracker=True, detect_every=5) as estimate,
        VideoFile(Path("tracked.mp4"), 24.0) as video,  # the rate of pictures that have no time
    ):
        for number, (frame, time_ms) in enumerate(islice(frames_from(path), 10_000)):
            poses = estimate(frame)
            video.write(poses.draw(frame), time_ms)
            print(number, dict(zip(poses.track_ids.tolist(), poses.boxes.round().tolist(), strict=True)))


if __name__ == "__main__":
    main(sys.argv[1:])
