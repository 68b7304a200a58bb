"""All viewers: what one thread posts reaches every mailbox. A slow viewer slows nobody.

viewers.post_frame(frame)                      # from any thread; one hand-over to the loop, however many look
with viewers.admitted() as mailbox: ...        # in the event loop, as long as a viewer stays
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from sdk.errors import SdkError
from sdk.live.mailbox import Frame, Mailbox

__all__ = ["FullError", "Viewers"]


class FullError(SdkError):
    """As many viewers are there as may be."""


class Viewers:
    """The mailboxes of those who look now. `on_arrival` is told of each new one: he wants what is known already."""

    def __init__(self, most: int, on_arrival: Callable[[], None]) -> None:
        self.most = most
        self.slow = 0  # viewers that were sent away because they did not keep up
        self._on_arrival = on_arrival
        self._loop: asyncio.AbstractEventLoop | None = None
        self._mailboxes: list[Mailbox] = []
        self._gone_replaced = 0
        self._texts: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._mailboxes)

    @property
    def replaced(self) -> int:
        """Frames that viewers did not get because a newer one came first."""
        return self._gone_replaced + sum(mailbox.replaced for mailbox in tuple(self._mailboxes))

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """From here on what is posted arrives."""
        self._loop = loop

    def post_frame(self, frame: Frame) -> None:
        def put() -> None:
            for mailbox in self._mailboxes:
                mailbox.put_frame(frame)

        self._in_loop(put)

    def post_text(self, kind: str, text: str) -> None:
        """The newest of each kind is kept for those who come later."""
        self._in_loop(lambda: self._put_text(kind, text))

    @contextmanager
    def admitted(self) -> Iterator[Mailbox]:
        if len(self) >= self.most:
            raise FullError(f"at most {self.most} viewers may look at once; close a page, or raise --viewers")
        mailbox = Mailbox()
        for kind, text in self._texts.items():
            mailbox.put_text(kind, text)
        self._mailboxes.append(mailbox)
        self._on_arrival()
        try:
            yield mailbox
        finally:
            self._mailboxes.remove(mailbox)
            self._gone_replaced += mailbox.replaced

    def _put_text(self, kind: str, text: str) -> None:
        self._texts[kind] = text
        for mailbox in self._mailboxes:
            mailbox.put_text(kind, text)

    def _in_loop(self, deed: Callable[[], object]) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended: nobody looks
                self._loop.call_soon_threadsafe(deed)
