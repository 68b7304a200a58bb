"""What TensorRT says while it works: messages as `logging` records, progress as calls of a `Monitor`.

The classes of both flavours are alike and are handed in; this module imports neither package. For `sdk.trt` alone.

    logger = new_logger(tensorrt, "sdk.trt.tensorrt")
    with logger.collected() as errors:
        ...                                        # a call that may fail
        raise BuildError(told(errors))
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

__all__ = ["TRACE", "Monitor", "new_logger", "progress_class", "told"]

HARMLESS = ("Converting conv activation scales", "Empty initializer")  # warnings that no user can do anything about
TRACE = 5  # below logging.DEBUG: TensorRT's VERBOSE, thousands of lines a build

log = logging.getLogger(__name__)


class Monitor(Protocol):
    """Hears of a build's progress. `step` answers whether to go on; False stops the build."""

    def start(self, phase: str, parent: str | None, steps: int) -> None: ...

    def step(self, phase: str, step: int) -> bool: ...

    def finish(self, phase: str) -> None: ...


def told(errors: Sequence[str]) -> str:
    """Collected messages in one line, each once."""
    return "; ".join(dict.fromkeys(errors)) or "it gave no reason"


class _Collector:
    """Keeps the error messages that arrive while a call runs; logs them after a call that went well all the same.

    Threads may collect at once: a message goes to its own thread's call, or, from a thread of TensorRT's, to the last.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a garbage collection inside may free what logs
        self._calls: list[tuple[int, list[str]]] = []  # thread, messages
        self._warned: dict[str, int] = {}  # message -> how often, since the calls began
        self._interrupted: dict[int, KeyboardInterrupt] = {}  # by thread

    @contextmanager
    def collected(self) -> Iterator[list[str]]:
        call: tuple[int, list[str]] = (threading.get_ident(), [])
        with self._lock:
            self._calls.append(call)
        try:
            yield call[1]  # a caller that raises tells them in its message
            for message in call[1]:
                log.error("%s", message)
        finally:
            with self._lock:
                self._calls = [other for other in self._calls if other is not call]
                over = {} if self._calls else self._warned
                self._warned = self._warned if self._calls else {}
            for message, count in over.items():
                if count > 1:
                    log.warning("%s (%d times)", message, count)
            interrupt = self._interrupted.pop(threading.get_ident(), None)
            if interrupt is not None:
                raise interrupt

    def interrupted(self, error: KeyboardInterrupt) -> None:
        """Ctrl-C came inside a callback, where TensorRT would swallow it: it is raised when the call is over."""
        self._interrupted[threading.get_ident()] = error

    def heard(self, warning: str) -> bool:
        """Whether this warning came before in the calls that run: one a layer would drown the others."""
        with self._lock:
            count = self._warned.get(warning, 0) + 1 if self._calls else 1
            self._warned[warning] = count
            return count > 1

    def keep(self, message: str) -> bool:
        """Whether some call collects, and now holds, this message."""
        with self._lock:
            mine = [messages for thread, messages in self._calls if thread == threading.get_ident()]
            takers = mine or [messages for _, messages in self._calls]
            if takers:
                takers[-1].append(message)
            return bool(takers)


def new_logger(trt: Any, name: str) -> Any:
    """An `ILogger` of the package `trt` that logs under `name`; errors go to whoever collects them."""
    base = trt.ILogger
    trt_log = logging.getLogger(name)
    levels = {
        base.INTERNAL_ERROR: logging.ERROR,
        base.ERROR: logging.ERROR,
        base.WARNING: logging.WARNING,
        base.INFO: logging.DEBUG,
        base.VERBOSE: TRACE,
    }

    class Logger(base, _Collector):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            base.__init__(self)
            _Collector.__init__(self)
            self._harmless = set(HARMLESS)  # not told yet

        def log(self, severity: Any, message: str) -> None:
            try:
                self._told(levels[severity], message)
            except KeyboardInterrupt as error:
                self.interrupted(error)

        def _told(self, level: int, message: str) -> None:
            kind = next((kind for kind in HARMLESS if kind in message), None)
            if level == logging.WARNING and kind is not None:
                if kind in self._harmless:
                    self._harmless.discard(kind)
                    trt_log.info("%s", message)
                return
            if level == logging.WARNING and self.heard(message.strip()):
                return
            if level < logging.ERROR or not self.keep(message.strip()):
                trt_log.log(level, "%s", message)

    return Logger()


def progress_class(trt: Any) -> Any:
    """The IProgressMonitor class that hands on to a `Monitor`."""
    base = trt.IProgressMonitor

    class Progress(base):  # type: ignore[misc, valid-type]
        def __init__(self, monitor: Monitor) -> None:
            base.__init__(self)
            self.monitor = monitor

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.monitor.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return self.monitor.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            self.monitor.finish(phase_name)

    return Progress
