"""Files written whole or not at all. What is in them is their writers' matter.

with whole_file(Path("report.json")) as temporary:
    temporary.write_text(text)                       # renamed to report.json when the block ends well
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdk.errors import OutputError

__all__ = ["whole_file"]


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends well and removed when it does not.

    It keeps the ending of `path`, by which some writers choose a format. Missing folders are made. An OSError of the
    block, a full disk above all, becomes an OutputError.
    """
    temporary = path.with_name(f".{os.getpid()}.part.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"'{path}' cannot be written ({error.strerror or error}); make room or choose another place"
        ) from error
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # its folder was never there, or cannot be entered: nothing was written
