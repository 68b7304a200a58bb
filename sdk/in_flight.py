"""Calls into native code, counted, so that the interpreter does not end under them.

A daemon thread that comes back from native code while Python (up to 3.13) shuts down is ended inside it, and C++
answers that by aborting the process. So at the end of the program calls that begin are refused, and those that have
begun are waited for, up to WAIT_S. A call that holds others (an estimator's, of its ops) is one call: what it holds
still begins. The thread that ends the program is not ended itself, and may call on.

    with in_flight:                       # ClosedError at the end of the program
        native.crop(...)
"""

from __future__ import annotations

import atexit
import logging
import os
from threading import get_ident
from time import monotonic, sleep
from types import TracebackType

from sdk.errors import ClosedError

__all__ = ["WAIT_S", "InFlight", "in_flight"]

WAIT_S = 10.0  # a call takes milliseconds; the slowest seen, a large network on a CPU of too many threads, 3 s
NAP_S = 0.001

log = logging.getLogger(__name__)


class InFlight:
    """The calls of all threads, by thread. Entering takes no lock: single steps of a dict are whole in CPython."""

    def __init__(self) -> None:
        self._depths: dict[int, int] = {}  # thread -> calls in each other
        self._ender: int | None = None  # the thread that ends the program
        self._watched = False

    def __enter__(self) -> None:
        thread = get_ident()
        depth = self._depths.get(thread, 0)
        self._depths[thread] = depth + 1  # before the question below: the end asks in the other order
        if self._ender not in (None, thread) and not depth:
            del self._depths[thread]
            raise ClosedError("the program is ending: no new call begins; end or join the threads that call first")
        if not self._watched:
            self.watch()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        thread = get_ident()
        depth = self._depths[thread] - 1
        if depth:
            self._depths[thread] = depth
        else:
            del self._depths[thread]

    def watch(self) -> None:
        """Stand at the end before everything that registers for it later is torn down: called as engines are opened."""
        if not self._watched:
            os.register_at_fork(after_in_child=self._forget_others)
        self._watched = True
        atexit.unregister(self.end)
        atexit.register(self.end)

    def end(self) -> None:
        """Refuse what begins and wait for what has begun."""
        self._ender = get_ident()
        until = monotonic() + WAIT_S
        while self._others() and monotonic() < until:
            sleep(NAP_S)
        if self._others():
            log.warning("the program ends while %d calls are still running after %g s", len(self._others()), WAIT_S)

    def _others(self) -> list[int]:
        mine = get_ident()
        return [thread for thread in list(self._depths) if thread != mine]

    def _forget_others(self) -> None:
        """A forked child has the thread that forked, alone."""
        for thread in self._others():
            del self._depths[thread]


in_flight = InFlight()
