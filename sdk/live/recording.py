"""Recording what is seen: of each camera a clip (MP4, undrawn) and its joints as JSON lines, line by frame.

Both appear under their names when the recording is finished, whole or not at all. A clip ends, and the next begins,
after MOST_S seconds and where the picture's size changes, so that a machine that dies takes ten minutes with it and not
a night. A thread of its own writes; where the disk is slower than the cameras, frames are left out of both files alike
and counted.

    with Recorder(Path("recordings"), ["door", "yard"]) as recorder:
        recorder.start(); recorder.offer(result); recorder.finish()
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from queue import Full, Queue
from threading import Lock, Thread
from time import monotonic
from types import TracebackType
from typing import Any

from sdk.errors import SdkError
from sdk.files import check_place, naming, whole_file
from sdk.media.lines import line_of
from sdk.media.sinks import VideoFile
from sdk.people.cameras import CameraPoses

__all__ = ["Recorder"]

log = logging.getLogger(__name__)
MOST_S = 600.0
WAITING = 16  # frames in memory at most: 100 MB of 1080p
NOMINAL_FPS = 30.0  # frames are shown at their own times


class Recorder:
    """Writes what it is offered between `start` and `finish`. `changed` is called when its state is another."""

    def __init__(self, folder: Path, names: Sequence[str], changed: Callable[[], None] = lambda: None) -> None:
        self._folder, self._names, self._changed = folder, names, changed
        self._queue: Queue[CameraPoses | None] = Queue(WAITING)
        self._lock = Lock()
        self._thread: Thread | None = None
        self._on = False
        self._since = 0.0
        self._frames = self._left_out = 0
        self._files: list[str] = []
        self._error: str | None = None

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()

    def state(self) -> dict[str, Any]:
        """For the page: whether it runs, since how many seconds, and what came of it."""
        return {
            "on": self._on,
            "seconds": round(monotonic() - self._since, 1) if self._on else 0.0,
            "frames": self._frames,
            "left_out": self._left_out,
            "files": list(self._files),
            "error": self._error,
        }

    def start(self) -> None:
        """From the next frame on. OutputError where nothing can be written; nothing happens while it runs."""
        with self._lock:
            if self._on:
                return
            self._join()  # one that failed still waits to be told
            check_place(self._folder / "recording.mp4")
            self._queue = Queue(WAITING)  # a frame may have come after the last recording's end
            self._frames, self._left_out, self._files, self._error = 0, 0, [], None
            self._since, self._on = monotonic(), True
            self._thread = Thread(target=self._run, name="sdk-live-recorder", daemon=True)
            self._thread.start()
        self._changed()

    def finish(self) -> None:
        """Close the files; they are there when this returns. Nothing happens where nothing is recorded."""
        with self._lock:
            if self._thread is None:
                return
            self._on = False
            self._join()
        self._changed()

    def offer(self, result: CameraPoses) -> None:
        """A frame, if it is to be recorded; never waits."""
        if not self._on:
            return
        try:
            self._queue.put_nowait(result)
        except Full:
            self._left_out += 1

    def _join(self) -> None:
        if self._thread is not None:
            self._queue.put(None)  # the thread takes until this comes, whatever has failed
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        takes: dict[int, _Take] = {}
        try:
            while (result := self._queue.get()) is not None:
                if self._error is None:
                    self._write(takes, result)
        finally:
            self._end(takes)

    def _write(self, takes: dict[int, _Take], result: CameraPoses) -> None:
        try:
            take = takes.get(result.camera)
            if take is not None and not take.goes_on_with(result):
                del takes[result.camera]
                self._files += take.finish()
                take = None
            if take is None:
                take = takes[result.camera] = _Take(self._path(result.camera), self._names[result.camera], result)
            take.write(result)
            self._frames += 1
        except SdkError as error:
            self._fail(takes, error)

    def _end(self, takes: dict[int, _Take]) -> None:
        while takes:
            _, take = takes.popitem()
            try:
                self._files += take.finish()
            except SdkError as error:
                self._fail(takes, error)

    def _fail(self, takes: dict[int, _Take], error: SdkError) -> None:
        """What is unfinished goes; what was finished stays."""
        log.error("recording ended: %s", error)
        self._error, self._on = str(error), False
        for take in takes.values():
            take.give_up(error)
        takes.clear()
        self._changed()

    def _path(self, camera: int) -> Path:
        """A name that no file has: the time, and the camera where there are several."""
        stem = datetime.now().strftime("%Y-%m-%dT%H-%M-%S") + (f"-camera{camera}" if len(self._names) > 1 else "")
        names = (stem, *(f"{stem}-{number}" for number in range(2, 1000)))
        return next(path for name in names if not (path := self._folder / f"{name}.mp4").exists())


class _Take:
    """A clip and its lines, open."""

    def __init__(self, path: Path, name: str, first: CameraPoses) -> None:
        self._name = name
        self._path, self._lines_path = path, path.with_suffix(".jsonl")
        self._began_s = first.frame.captured_s
        with ExitStack() as stack:
            unfinished = stack.enter_context(whole_file(self._lines_path))  # the last to be renamed: beside its clip
            self._video = stack.enter_context(VideoFile(path, NOMINAL_FPS))
            self._lines = stack.enter_context(unfinished.open("w", encoding="utf-8"))
            self._stack = stack.pop_all()

    def goes_on_with(self, result: CameraPoses) -> bool:
        return self._video.takes(result.frame.picture) and result.frame.captured_s - self._began_s < MOST_S

    def write(self, result: CameraPoses) -> None:
        self._video.write(result.frame.picture, 1e3 * (result.frame.captured_s - self._began_s))
        with naming(self._lines_path):
            self._lines.write(json.dumps(line_of(self._name, result.frame, result.poses)) + "\n")

    def finish(self) -> list[str]:
        """The files, at their names: the clip first."""
        self._stack.close()
        return [str(self._path), str(self._lines_path)]

    def give_up(self, error: SdkError) -> None:
        with suppress(SdkError, OSError):  # a full disk takes no waiting lines either; `error` is what is told
            self._stack.__exit__(type(error), error, error.__traceback__)
