"""Annotated copies of what `sdk predict --save` reads: a picture of each picture, a video of each video.

copies = AnnotatedCopies(sources, folder)            # UsageError where two would have one name
with ExitStack() as stack:                           # closes a video's copy, whole where it ends well
    copies.write(source, frame, annotated, stack)
copies.end()                                         # no more of this source
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from sdk.errors import UsageError
from sdk.files import real_path

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sdk.media.sinks import VideoFile
    from sdk.media.sources import Source
    from sdk.media.videos import SourceFrame

__all__ = ["AnnotatedCopies"]

log = logging.getLogger("sdk.predict")


class AnnotatedCopies:
    """The copies, and where each of them goes."""

    def __init__(self, sources: Sequence[Source], folder: Path | None) -> None:
        self.places = {} if folder is None else _places(sources, folder)
        self._video: VideoFile | None = None  # the one that is being written
        self._part = ExitStack()  # where it is open
        self._parts = 1  # files of the source: one for each size of its pictures

    @property
    def unfinished(self) -> Path | None:
        """The video that is being written."""
        return None if self._video is None else self._video.path

    def wants(self, source: Source) -> bool:
        return source in self.places

    def write(self, source: Source, frame: SourceFrame, picture: NDArray[np.uint8], stack: ExitStack) -> None:
        """The annotated picture of a frame; a video's is closed with `stack`."""
        from sdk.media.sinks import write_picture

        if source.kind == "image":
            write_picture(self.places[source], picture)
            return
        if self._video is not None and not self._video.takes(picture):
            self._part.close()  # whole as far as it goes: the next size has a file of its own
            self._video, self._parts = None, self._parts + 1
            log.warning("'%s': its pictures are of another size from frame %d on", source.name, frame.number)
        if self._video is None:
            self._video = self._next_video(source, stack)
        self._video.write(picture, frame.time_ms)

    def end(self) -> None:
        self._video, self._parts = None, 1

    def _next_video(self, source: Source, stack: ExitStack) -> VideoFile:
        from sdk.media.sinks import VideoFile

        self._part = stack.enter_context(ExitStack())
        target = place = self.places[source]
        taken = {*self.places.values()} - {target}
        while self._parts > 1 and (place == target or place in taken):
            place = target.with_stem(f"{target.stem}-{self._parts}")
            self._parts += place in taken
        sound_of = source.path if source.address is None else None
        return self._part.enter_context(VideoFile(place, source.fps, sound_of=sound_of))


def _places(sources: Sequence[Source], folder: Path) -> dict[Source, Path]:
    """Where each source's annotated copy goes; UsageError rather than write two to one place, or over a source."""
    sources_of: dict[Path, Source] = {}
    originals = {real_path(source.path) for source in sources if source.address is None}
    whole_folder = real_path(folder)
    for source in sources:
        name = source.relative if source.kind == "image" else source.relative.with_suffix(".mp4")
        target = folder / name
        if whole_folder / name in originals:
            raise UsageError(f"--save would overwrite the source '{target}'; choose another folder")
        other = sources_of.setdefault(target, source)
        if other is not source:
            raise UsageError(
                f"'{other.name}' and '{source.name}' would both be saved as '{target}'; run them separately"
            )
    return {source: target for target, source in sources_of.items()}
