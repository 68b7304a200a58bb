"""Signals that ask a program to stop: Ctrl-C, SIGTERM of a supervisor, SIGHUP of a terminal that closes. All are one.

with stopping_alike():                # in a program's main: each of them raises KeyboardInterrupt, as Ctrl-C does
    ...
with held_back():                     # they wait until the block has ended: a few renames, a removal
    ...
with stop_handled_by(handler):        # while native code runs that has its own way to end
    ...

Python calls handlers in the main thread alone; elsewhere these blocks change nothing. A signal that is ignored (nohup)
stays ignored.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["STOPS", "held_back", "stop_handled_by", "stopping_alike"]

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
Handler = Callable[[int, FrameType | None], Any]


@contextmanager
def stopping_alike() -> Iterator[None]:
    """SIGTERM and SIGHUP raise KeyboardInterrupt, where nobody has chosen otherwise."""
    owner = os.getpid()

    def stop(number: int, _: FrameType | None) -> None:
        if os.getpid() != owner:  # a forked worker, whose parent ends it
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        raise KeyboardInterrupt

    with _handling({number: stop for number in STOPS[1:] if signal.getsignal(number) == signal.SIG_DFL}):
        yield


@contextmanager
def stop_handled_by(handler: Handler) -> Iterator[None]:
    """`handler` for every signal that would stop the program."""
    heard = (number for number in STOPS if signal.getsignal(number) not in (signal.SIG_IGN, signal.SIG_DFL, None))
    with _handling(dict.fromkeys(heard, handler)):
        yield


@contextmanager
def held_back() -> Iterator[None]:
    """What would stop the program waits until the block has ended; it is then answered as if it came now."""
    came: list[int] = []
    with stop_handled_by(lambda number, _: came.append(number)):
        yield
    for number in came[:1]:
        signal.raise_signal(number)


@contextmanager
def _handling(handlers: dict[signal.Signals, Handler]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        handlers = {}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
