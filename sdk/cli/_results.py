"""Results of `sdk predict` in other tools' forms: tables, Rerun, OpenPose's and MMPose's JSON, and a user's function.

results = OtherResults(arguments, sources)                 # UsageError for one that cannot be
with results.opened():
    results.write(source, frame, poses)
    results.end(source)                               # no more of it
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdk.errors import UsageError
from sdk.files import write_text
from sdk.media.lines import part_of
from sdk.wording import counted

if TYPE_CHECKING:
    from sdk.media.sources import Source
    from sdk.media.videos import SourceFrame
    from sdk.poses import Poses

__all__ = ["OtherResults", "add_result_arguments"]

Taker = Callable[["SourceFrame", "Poses"], object]


def add_result_arguments(out: argparse._ArgumentGroup) -> None:
    out.add_argument("--table", type=Path, metavar="FILE", help="write a row a person: FILE.csv or FILE.parquet")
    out.add_argument("--rerun", type=Path, metavar="FILE", help="write a recording for Rerun's viewer, FILE.rrd")
    out.add_argument("--openpose", type=Path, metavar="DIR", help="write OpenPose's JSON, a file a frame")
    out.add_argument("--mmpose", type=Path, metavar="DIR", help="write MMPose's JSON, a file a source")
    out.add_argument(
        "--call", metavar="MODULE:FUNCTION", help="call your function with each frame and its poses, as they come"
    )


class OtherResults:
    """What of them was asked for."""

    def __init__(self, arguments: argparse.Namespace, sources: Sequence[Source]) -> None:
        self._table_path, self._rerun_path = arguments.table, arguments.rerun
        self._openpose, self._mmpose = arguments.openpose, arguments.mmpose
        self._frames: list[dict[str, Any]] = []  # MMPose's, of the source that is being read
        self._calls: list[Taker] = [_function(arguments.call)] if arguments.call else []
        self._writers: list[Any] = self._made()
        endless = next((source.name for source in sources if source.is_live), None)
        if self._mmpose and endless is not None:
            raise UsageError(f"--mmpose writes a file at the end of its source, and '{endless}' has none; use --jsonl")
        for folder in self.folders:
            _refuse_shared_names(folder, sources)

    @property
    def files(self) -> dict[str, Path | None]:
        """What is written, by option; and where it grows."""
        grown = self._grows_in
        unfinished = {} if grown is None else {"--table, unfinished,": grown}
        return {"--table": self._table_path, "--rerun": self._rerun_path, **unfinished}

    @property
    def _grows_in(self) -> Path | None:
        """Where a table's rows outlive a run that ends early; None where they do not, or there is none."""
        path = self._table_path
        return None if path is None or path.suffix.lower() != ".csv" else part_of(path)

    @property
    def folders(self) -> list[Path]:
        return [folder for folder in (self._openpose, self._mmpose) if folder is not None]

    def opened(self) -> ExitStack:
        with ExitStack() as stack:
            for writer in self._writers:
                stack.enter_context(writer)
            return stack.pop_all()

    def write(self, source: Source, frame: SourceFrame, poses: Poses) -> None:
        for writer in self._writers:
            writer.write(frame, poses)
        if self._openpose is not None:
            from sdk.media.keypoint_files import openpose_record

            name = source.relative.with_name(f"{source.relative.stem}_{frame.number:012d}_keypoints.json")
            size_hw = (frame.picture.shape[0], frame.picture.shape[1])
            write_text(self._openpose / name, json.dumps(openpose_record(poses, size_hw)))
        if self._mmpose is not None:
            from sdk.media.keypoint_files import mmpose_instances

            self._frames.append({"frame_id": frame.number, "instances": mmpose_instances(poses)})
        for call in self._calls:
            call(frame, poses)

    def end(self, source: Source) -> None:
        """All of a source was written: MMPose's file of it is whole."""
        if self._mmpose is not None and self._frames:
            told = self._frames if source.kind == "video" else self._frames[0]["instances"]
            write_text(self._mmpose / source.relative.with_suffix(".json"), json.dumps(told))
        self._frames = []

    def lost(self) -> list[str]:
        """What an interrupt takes, in words."""
        table = self._table_path if self._grows_in is None else None
        lost = [f"the unfinished '{path}'" for path in (table, self._rerun_path) if path is not None]
        if self._frames:
            lost.append(f"{counted(len(self._frames), 'frame')} for '{self._mmpose}'")
        return lost

    def _made(self) -> list[Any]:
        writers: list[Any] = []
        if self._table_path is not None:
            from sdk.media.tables import table_file

            writers.append(table_file(self._table_path))
        if self._rerun_path is not None:
            from sdk.media.rerun_file import RerunFile

            writers.append(RerunFile(self._rerun_path))
        return writers


def _refuse_shared_names(folder: Path, sources: Sequence[Source]) -> None:
    """UsageError rather than write one source's files over another's: they are named after it without its ending."""
    sources_of: dict[Path, Source] = {}
    for source in sources:
        name = source.relative.with_suffix("")
        other = sources_of.setdefault(name, source)
        if other is not source:
            raise UsageError(
                f"'{other.name}' and '{source.name}' would both be written as '{name}' in '{folder}'; "
                "run them separately"
            )


def _function(name: str) -> Taker:
    """The function that `module:function` names, the current folder's modules among them."""
    module, _, function = name.partition(":")
    sys.path.insert(0, "")
    try:
        loaded = importlib.import_module(module) if module and function else None
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # a module of the user's that imports what is not installed
        raise UsageError(f"--call must name MODULE:FUNCTION (no module '{module}' is found from here)") from error
    finally:
        sys.path.remove("")
    found = getattr(loaded, function, None)
    if loaded is not None and found is None:
        raise UsageError(f"--call must name MODULE:FUNCTION (module '{module}' has no '{function}')")
    if not callable(found):
        raise UsageError(f"--call must name MODULE:FUNCTION, such as my_app:on_poses (got '{name}')")
    taker: Taker = found
    return taker
