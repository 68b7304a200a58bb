"""Lines, of JSON or of a table, that outlive the run that writes them: `poses.jsonl.part` grows line by line, and is
renamed at the end.

The one result that may lie there unfinished: a run of hours that is stopped keeps every line it finished. No line in
it is ever half of one, and `poses.jsonl` itself appears whole or not at all.

    with PartFile(Path("poses.jsonl")) as lines:
        lines.write(line_of("clip.mp4", frame, poses))        # of a SourceFrame, and its Poses
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from sdk.files import naming
from sdk.wording import counted

if TYPE_CHECKING:
    from sdk.media.videos import SourceFrame
    from sdk.poses import Poses

__all__ = ["PartFile", "line_of", "part_of"]

log = logging.getLogger(__name__)


def part_of(path: Path) -> Path:
    """Where the lines of `path` grow."""
    return path.with_name(f"{path.name}.part")


def line_of(name: str, frame: SourceFrame, poses: Poses) -> dict[str, Any]:
    """The JSON line of a frame of the source `name`."""
    height, width = frame.picture.shape[:2]
    where = {"source": name, "frame": frame.number, "time_ms": frame.time_ms}
    return {**where, "width": width, "height": height, **poses.to_dict()}


class PartFile:
    """JSON lines in `<name>.part`, each on disk once written; `<name>` when the block ends well."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.part = part_of(path)
        self.lines = 0
        self._size = 0
        self._file: IO[bytes] | None = None

    def __enter__(self) -> PartFile:
        with naming(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.part.open("wb")
        return self

    def write(self, value: Any) -> None:
        self.write_line(json.dumps(value))

    def write_line(self, text: str) -> None:
        assert self._file is not None, "a PartFile is used inside its block"
        line = text.encode(errors="backslashreplace") + b"\n"
        with naming(self.path):
            self._file.write(line)
            self._file.flush()
        self._size += len(line)
        self.lines += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None, "a PartFile is used inside its block"
        if kind is None:
            with naming(self.path):
                self._file.close()
                self.part.replace(self.path)
            return
        with suppress(OSError):  # a line that found no room finds none now
            self._file.close()
        self._leave_whole_lines()

    def _leave_whole_lines(self) -> None:
        if self.lines:
            os.truncate(self.part, self._size)
            log.warning("'%s' keeps %s of the run that ended early", self.part, counted(self.lines, "finished line"))
        else:
            self.part.unlink(missing_ok=True)
