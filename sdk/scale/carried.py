"""Files that travel with a job to other machines of a cluster: the engine's, and the detector's.

    carried = carried_from(engine, how.detector)      # where they are
    how = carried.laid(folder, how)                   # elsewhere: what to open there

A detector that the catalogue publishes is kept there as a fetched one is, for others to come.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sdk.files import write_bytes
from sdk.manifest import MANIFEST_NAME, Engine
from sdk.people.detector import place_of_detector
from sdk.resources import cache_folder
from sdk.scale.estimating import How

__all__ = ["Carried", "carried_from"]

Files = Mapping[str, bytes]  # by their names in their folder


@dataclass(frozen=True)
class Carried:
    """`kind`: what the detector is; None where there is none."""

    engine: Files
    detector: Files
    kind: Literal["folder", "file", "published"] | None

    def laid(self, folder: Path, how: How) -> How:
        """The files, below `folder`; how to do the job with them."""
        how = replace(how, engine=str(_laid(folder / "engine", self.engine)))
        if self.kind is None:
            return how
        if self.kind == "published":
            _laid(cache_folder() / "weights", self.detector)
            return how
        place = _laid(folder / "detector", self.detector)
        return replace(how, detector=str(place if self.kind == "folder" else place / next(iter(self.detector))))


def carried_from(engine: Engine, detector: str | None) -> Carried:
    files = {name: (engine.folder / name).read_bytes() for name in (MANIFEST_NAME, *engine.manifest.files)}
    if detector is None:
        return Carried(files, {}, None)
    place = place_of_detector(detector)
    if place.is_dir():
        return Carried(files, {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()}, "folder")
    return Carried(files, {place.name: place.read_bytes()}, "file" if place == Path(detector) else "published")


def _laid(folder: Path, files: Files) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if not (folder / name).is_file():
            write_bytes(folder / name, content)
    return folder
