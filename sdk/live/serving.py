"""The server: a socket, one event loop, and a clean end by Ctrl-C, SIGTERM, or the pipeline's own end by an error.

serve(watch, ServingOptions(port=0), announce=lambda address: print(address))
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sdk.errors import InputError, MissingDependencyError
from sdk.interrupts import STOPS
from sdk.live.guard import TOKEN, Rules
from sdk.live.viewers import Viewers
from sdk.live.watching import Watch

__all__ = ["Address", "Server", "ServingOptions", "check_options", "serve"]

LOOPBACK = ("127.0.0.1", "::1", "localhost")
SEND_BUFFER_BYTES = 128 << 10  # the kernel's, of each viewer: two frames of 720p; by itself it grows to 4 MB
STUCK_MS = 20_000  # a peer that takes nothing for so long is gone
LINGER_S = 5.0  # after an error that ends the run: pages show it, and a probe of /healthz sees it
GRACE_S = 2
SWITCH_S = 0.001  # Python's 5 ms between threads is a third of a frame: the loop and the pipeline share one interpreter


@dataclass(frozen=True)
class ServingOptions:
    """`token`: needed beyond this machine; `hosts`: more names that the server answers to."""

    host: str = "127.0.0.1"
    port: int = 8642
    token: str | None = None
    hosts: tuple[str, ...] = ()
    viewers: int = 32
    health: bool = False
    metrics: bool = False

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in LOOPBACK


@dataclass(frozen=True)
class Address:
    """Where the page is: `url` opens it, its token in the fragment, which no browser sends."""

    url: str
    port: int
    has_token: bool


def serve(watch: Watch, options: ServingOptions, announce: Callable[[Address], None] = lambda _: None) -> None:
    """Serve until a signal asks for an end, or the pipeline fails: its error is raised then."""
    Server(watch, options).run(announce)


class Server:
    """One page, served by `run` in the calling thread; `stop` ends it from any."""

    def __init__(self, watch: Watch, options: ServingOptions) -> None:
        check_options(options)
        self._watch, self._options = watch, options
        self._listener = _bound(options.host, options.port)
        port, fragment = (
            int(self._listener.getsockname()[1]),
            "" if options.token is None else f"#token={options.token}",
        )
        self.address = Address(f"http://{_shown(options.host)}:{port}/{fragment}", port, options.token is not None)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._uvicorn: Any = None

    def run(self, announce: Callable[[Address], None] = lambda _: None) -> None:
        """Until `stop`, a signal, or an error of the pipeline, which is raised."""
        before = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_S)
        try:
            asyncio.run(self._run(announce))
        finally:
            sys.setswitchinterval(before)
            self._listener.close()
        if self._watch.error is not None:
            raise self._watch.error

    def stop(self, *, after_s: float = 0.0) -> None:
        """End soon: viewers are told, a recording is finished."""
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._loop.call_later, after_s, self._end)

    async def _run(self, announce: Callable[[Address], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._uvicorn, viewers = _uvicorn_server(self._watch, self._options)
        viewers.open(self._loop)
        for number in STOPS:
            if signal.getsignal(number) == signal.SIG_IGN:  # nohup: the terminal may close
                continue
            with suppress(ValueError, RuntimeError):  # not the main thread: who runs it there ends it by `stop`
                self._loop.add_signal_handler(number, self._end)
        self._watch.on_end = self._ended
        with self._watch.running(viewers):
            serving = asyncio.create_task(self._uvicorn._serve([self._listener]))
            while not (self._uvicorn.started or serving.done()):
                await asyncio.sleep(0.01)
            announce(self.address)
            await serving

    def _ended(self) -> None:
        """The pipeline's end by an error is the server's, a moment later; at the end of its files the page stays."""
        if self._watch.error is not None:
            self.stop(after_s=LINGER_S)

    def _end(self) -> None:
        self._uvicorn.should_exit = True


def check_options(options: ServingOptions) -> None:
    """InputError for what cannot be served, or would be served to everybody."""
    try:
        import starlette
        import uvicorn
        import websockets
    except ImportError as error:
        raise MissingDependencyError(
            f"the live page needs the package {error.name}; pip install 'simcc-edge-sdk[live]'"
        ) from error
    del starlette, uvicorn, websockets
    if not 0 <= options.port <= 65535:
        raise InputError(f"port must be a number of 0 to 65535, 0 for any that is free (got {options.port})")
    if not options.is_local and options.token is None:
        raise InputError(f"a server on '{options.host}' can be reached by others and needs a token; give one")
    if options.token is not None and not TOKEN.fullmatch(options.token):
        raise InputError("a token must be 16 to 128 letters, digits, '-' and '_', so that a URL and a header take it")


def _uvicorn_server(watch: Watch, options: ServingOptions) -> tuple[Any, Viewers]:
    import uvicorn

    from sdk.live.application import MESSAGE_BYTES, application

    viewers = Viewers(options.viewers, watch.welcome)
    rules = Rules(frozenset(_names(options)), any_address=not options.is_local, token=options.token)
    config = uvicorn.Config(
        application(watch, viewers, rules, health=options.health, metrics=options.metrics),
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="off",
        loop="asyncio",
        http="h11",
        ws="websockets-sansio",
        ws_max_size=MESSAGE_BYTES,
        ws_per_message_deflate=False,  # a JPEG has no air left
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
        limit_concurrency=4 * options.viewers + 64,
        h11_max_incomplete_event_size=16 << 10,
    )
    return uvicorn.Server(config), viewers


def _names(options: ServingOptions) -> Iterable[str]:
    """Names and addresses that a `Host` header may hold."""
    local = {"localhost", "127.0.0.1", "[::1]"}
    more = {name.lower() for name in options.hosts}
    if options.is_local:
        return local | more
    own = socket.gethostname().lower()
    return local | more | {own, f"{own}.local", options.host.lower()}


def _bound(host: str, port: int) -> socket.socket:
    """A listening socket with small buffers; InputError where there can be none."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise InputError(f"host '{host}' cannot be found ({error}); give an address of this machine") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)  # accepted sockets inherit it
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STUCK_MS)
        listener.bind(place)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise InputError(_why_not(host, port, error)) from error
    return listener


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is in use by another program; choose another with --port, or 0 for any"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} of {host} may not be used by this user; choose one above 1023 with --port"
    return f"port {port} of {host} cannot be opened ({os.strerror(error.errno or 0)}); give an address of this machine"


def _shown(host: str) -> str:
    """The host as others would write it: an address that stands for all is shown as this machine's own."""
    if host in ("0.0.0.0", "::", ""):
        host = _own_address()
    return f"[{host}]" if ":" in host else host


def _own_address() -> str:
    """The address by which this machine reaches others; a UDP socket that is connected sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a documentation address: it need not answer
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()
