"""What a verb writes must be a file where it may be written, none of what it reads, and no file may be written twice:
said before the work.

refuse_overwriting({"--coco": arguments.coco, "--jsonl": arguments.jsonl}, [arguments.boxes, *pictures])
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from sdk.errors import UsageError
from sdk.files import check_place, real_path

__all__ = ["engine_files", "refuse_overwriting"]


def refuse_overwriting(outputs: Mapping[str, Path | None], inputs: Iterable[Path | None]) -> None:
    """UsageError for an output (by its option; None: not asked for) that is also an input, or another output.

    OutputError for one that cannot be written where it is to be.

    Two names of one file, by links or detours, are one file. A verb that writes into a folder gives the files in it.
    """
    read = {_file(path): path for path in inputs if path is not None}
    taken: dict[object, str] = {}
    for option, path in outputs.items():
        if path is None:
            continue
        if _is_no_file(path):
            raise UsageError(f"{option} would be written to '{path}', which is no plain file; choose another path")
        file = _file(path)
        if file in read:
            raise UsageError(f"{option} would overwrite the input '{read[file]}' (got '{path}'); choose another path")
        if file in taken:
            raise UsageError(f"{option} and {taken[file]} would both be written to '{path}'; choose another path")
        taken[file] = option
    _refuse_files_as_folders(outputs)
    for path in filter(None, outputs.values()):
        check_place(path)


def _refuse_files_as_folders(outputs: Mapping[str, Path | None]) -> None:
    """UsageError for a file where another output has its folder."""
    places = {option: real_path(path) for option, path in outputs.items() if path is not None}
    folder_of = {folder: option for option, place in places.items() for folder in place.parents}
    for option, place in places.items():
        if place in folder_of:
            raise UsageError(
                f"{option} would be written to '{outputs[option]}', which is to be a folder ({folder_of[place]} goes "
                "into it); choose another path"
            )


def engine_files(engine: Path | str) -> list[Path]:
    """The files of an engine folder; none for a bundled engine's name."""
    folder = Path(engine)
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _is_no_file(path: Path) -> bool:
    """Whether something else than a file is there; a name that no file can have is told by who tries the place."""
    try:
        return path.exists() and not path.is_file()
    except OSError:
        return False


def _file(path: Path) -> object:
    """What tells a file from others: the file itself where it exists, else its whole path."""
    try:
        found = path.stat()
    except OSError:
        return real_path(path)
    return found.st_dev, found.st_ino
