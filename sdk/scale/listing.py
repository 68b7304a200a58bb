"""The entries of an archive, one after the other and in the same order in every run: folders, patterns, single files,
tar shards, videos. Lists and annotations are `sdk.scale.lists`'s; stores, `sdk.scale.stores`'s.

    listing = Listing(["photos/", "s3://bucket/more/", "shards/{000..009}.tar", "list.parquet"], recursive=True)
    for entry in listing.entries(): ...
    listing.counts                                    # what was passed over: duplicates, files that are no source

Nothing is kept of what was listed, and each file is named once: what a later source or a second line names again is
counted and passed over.
"""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from fnmatch import translate
from itertools import chain
from pathlib import Path
from typing import Any

from sdk.errors import InputError
from sdk.media.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from sdk.scale.entries import Entry
from sdk.scale.lists import LIST_SUFFIXES, entries_from_annotations, entries_from_list
from sdk.scale.segments import segments_of
from sdk.scale.sorting import Seen, sorted_names
from sdk.scale.stores import faults_as_oserror, filesystem, is_http, is_url, shown, told

__all__ = ["Listing"]

SHARD_SUFFIXES = frozenset({".tar"})
KNOWN = frozenset({*IMAGE_SUFFIXES, *VIDEO_SUFFIXES, *SHARD_SUFFIXES, *LIST_SUFFIXES, ".json"})
BRACES = re.compile(r"\{(\d+\.\.\d+|[^{}]*,[^{}]*)\}")
VERSION = re.compile(r"\?versionid=[^?]*$", re.IGNORECASE)  # of a store's file; else a ? is a letter of its name
RANGE = re.compile(r"(\d+)\.\.(\d+)")
STAMPS = ("ETag", "etag", "mtime", "last_modified")  # of s3fs, gcsfs and adlfs, others
MOST_BRACED = 1_000_000  # names that one pattern's braces stand for


@dataclass
class Listing:
    """`root`: what relative paths of lists and annotations count from (None: the list's own folder). `path_column`: of
    a list in CSV or Parquet. `segment_frames`: a video is cut at the first key frame after so many. `memory`: a folder
    where segments of videos are kept between runs."""

    sources: Sequence[str]
    recursive: bool = False
    root: str | None = None
    path_column: str | None = None
    segment_frames: int = 512
    memory: Path | None = None
    counts: Counter[str] = field(default_factory=Counter)

    def entries(self) -> Iterator[Entry]:
        """All of them; InputError for a source that is not there, or names nothing."""
        self.counts.clear()
        sources = [name for source in self.sources for name in _unbraced(source)]
        lone = len(sources) == 1 and _suffix(sources[0]) not in {*LIST_SUFFIXES, ".json"}
        with nullcontext() if lone else Seen() as seen:
            for source in sources:
                empty = True
                for entry in self._entries_of(source):
                    empty = False
                    if seen is not None and not seen.is_new(f"{_whole(entry.place)}\0{entry.segment}"):
                        self.counts["duplicates"] += 1
                        continue
                    yield entry
                if empty:
                    raise InputError(f"source '{shown(source)}' holds no picture, video or tar shard; check the path")

    def _entries_of(self, source: str) -> Iterator[Entry]:
        if is_url(source):
            yield from self._entries_of_url(source)
            return
        path = Path(source)
        if path.is_dir():
            yield from self._entries_of_folder(path)
        elif path.exists():
            yield from self._entries_of_file(source, _stamp(path.stat()), named=True)
        else:
            yield from self._entries_of_pattern(source)

    def _entries_of_folder(self, folder: Path) -> Iterator[Entry]:
        for name in _names_in(folder):
            path = folder / name
            try:
                state = path.stat()
            except OSError:  # gone since, or a link that leads nowhere
                self.counts["vanished"] += 1
                continue
            if path.is_dir():
                if self.recursive and not path.is_symlink():
                    yield from self._entries_of_folder(path)
                elif not self.recursive:
                    self.counts["folders not looked into"] += 1
            else:
                yield from self._entries_of_file(str(path), _stamp(state), named=False)

    def _entries_of_pattern(self, pattern: str) -> Iterator[Entry]:
        found = (name for name in glob.iglob(pattern, recursive=True) if Path(name).is_file())  # noqa: PTH207
        names = sorted_names(found)
        first = next(names, None)
        if first is None:
            raise InputError(f"source '{pattern}' does not exist, and as a pattern it matches no file; check the path")
        for name in chain([first], names):
            yield from self._entries_of_file(name, _stamp(Path(name).stat()), named=True)

    def _entries_of_url(self, source: str) -> Iterator[Entry]:
        if is_http(source) and _suffix(source) not in KNOWN:
            raise InputError(f"source '{shown(source)}' must be a file: what lies below an address cannot be listed")
        if is_http(source):
            yield from self._entries_of_file(source, "", named=True)
            return
        system, path = filesystem(source)
        try:
            with faults_as_oserror():
                lone = _suffix(source) in KNOWN and (not glob.has_magic(path) or system.isfile(path))
            if lone:
                yield from self._entries_of_file(source, "", named=True)
                return
            for name, stamp in _remote_files(system, source, path, self.recursive):
                yield from self._entries_of_file(name, stamp, named=False)
        except OSError as error:
            raise InputError(
                f"source '{shown(source)}' cannot be listed ({told(error)}); check its address, and the credentials in "
                "the environment"
            ) from error

    def _entries_of_file(self, place: str, stamp: str, *, named: bool) -> Iterator[Entry]:
        """What one file is; `named`: by the user, so that it must be something."""
        suffix = _suffix(place)
        if suffix in IMAGE_SUFFIXES:
            yield Entry("picture", place, stamp=stamp)
        elif suffix in VIDEO_SUFFIXES:
            yield from segments_of(place, stamp, self.segment_frames, self.memory)
        elif suffix in SHARD_SUFFIXES:
            yield Entry("tar", place, count=0, stamp=stamp)
        elif not named:
            self.counts["other files"] += 1
        elif suffix == ".json":
            yield from entries_from_annotations(place, self.root)
        elif suffix in LIST_SUFFIXES:
            yield from self._entries_of_list(place)
        else:
            raise InputError(f"source '{shown(place)}' has an unknown ending; known endings: {' '.join(sorted(KNOWN))}")

    def _entries_of_list(self, place: str) -> Iterator[Entry]:
        for entry in entries_from_list(place, self.root, self.path_column):
            suffix = _suffix(entry.place)
            if suffix in SHARD_SUFFIXES or suffix in VIDEO_SUFFIXES:
                if entry.boxes is not None:
                    raise InputError(
                        f"list '{shown(place)}' has boxes of '{shown(entry.place)}', which is no picture; give boxes "
                        "of frames with --boxes"
                    )
                yield from self._entries_of_file(entry.place, "", named=False)
            else:  # a picture, whatever its name: addresses often have no ending
                yield entry


def _names_in(folder: Path) -> Iterator[str]:
    """What a folder holds, but for what is hidden, in order."""
    try:
        found = os.scandir(folder)
    except OSError as error:
        raise InputError(f"folder '{folder}' cannot be looked into ({told(error)}); check its rights") from error
    with found:
        yield from sorted_names(each.name for each in found if not each.name.startswith("."))


def _remote_files(system: Any, source: str, path: str, recursive: bool) -> Iterator[tuple[str, str]]:
    """Addresses and stamps of the files below a folder of a store, or of those that a pattern names, in order."""
    folder, address, depth, wanted = path.rstrip("/"), source.rstrip("/"), None if recursive else 1, None
    with faults_as_oserror():
        if glob.has_magic(path) and not system.isdir(path):
            folder, address = _before_pattern(path), _before_pattern(source)
            if not folder:
                raise InputError(f"source '{shown(source)}' must name its bucket, and patterns only after it")
            wanted = re.compile(translate(path).replace(".*", "[^/]*") if "**" not in path else translate(path))
            depth = None if "**" in path else path[len(folder) + 1 :].count("/") + 1
        elif not system.exists(path):
            raise FileNotFoundError(path)
        states = system.find(folder, detail=True, maxdepth=depth)
    for name in sorted(states):
        below = name[len(folder) :]
        if states[name].get("type", "file") != "file" or (wanted is not None and not wanted.match(name)):
            continue
        if depth is None or below.count("/") <= depth:  # adlfs finds what lies deeper too
            yield address + below, _remote_stamp(states[name])


def _before_pattern(path: str) -> str:
    return path[: next(place for place, letter in enumerate(path) if letter in "*?[")].rpartition("/")[0]


def _remote_stamp(state: Mapping[str, Any]) -> str:
    changed = next((state[key] for key in STAMPS if state.get(key)), "")
    return f"{state.get('size')}/{changed}"


def _unbraced(source: str) -> Iterator[str]:
    """The sources that one with braces stands for, as shards are named: x-{000..127}.tar, {train,val}.tar."""
    found = None if Path(source).exists() else BRACES.search(source)
    if found is None:
        yield source
        return
    span = RANGE.fullmatch(found[1])
    if span is None:
        inner: Sequence[str] = found[1].split(",")
    else:
        low, high, width = int(span[1]), int(span[2]), len(span[1])
        if not low <= high < low + MOST_BRACED:
            raise InputError(f"source '{source}': the braces must count up, by at most {MOST_BRACED} (got {found[0]})")
        inner = [f"{number:0{width}d}" for number in range(low, high + 1)]
    for each in inner:
        yield from _unbraced(source[: found.start()] + each + source[found.end() :])


def _suffix(place: str) -> str:
    if is_url(place):
        place = place.partition("?")[0] if is_http(place) else VERSION.sub("", place)
    return os.path.splitext(place)[1].lower()  # noqa: PTH122 (a URL is no path)


def _whole(place: str) -> str:
    """What tells a file from others."""
    return place if is_url(place) else os.path.abspath(place)  # noqa: PTH100 (no links followed)


def _stamp(state: os.stat_result) -> str:
    return f"{state.st_size}/{state.st_mtime_ns}"
