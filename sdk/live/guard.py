"""Who may ask: an ASGI layer before everything else. It knows no page and no pipeline.

- `Host` must be a name of this machine, else a page from elsewhere could reach it by a name that it makes point here
  (DNS rebinding). An address is no name and cannot be made to point: it may stand where the server is bound to the net.
- `Origin`, which every browser sends with a WebSocket, must be the host that was asked.
- The token, where one is needed, comes in the header `Authorization: Bearer ...`, or, as browsers cannot set it on a
  WebSocket, as a subprotocol `token.<...>`. It never stands in a path, so in no log. The page's own files need none.

    app = Guard(app, Rules(hosts=frozenset({"localhost"}), any_address=False, token=None))
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any
from urllib.parse import urlsplit

__all__ = ["PROTOCOL", "TOKEN", "Guard", "Rules"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PROTOCOL = "sdk-live.1"  # the subprotocol that is agreed on; the token is never sent back
TOKEN = re.compile(r"[A-Za-z0-9_-]{16,128}")  # letters that a fragment, a header and a subprotocol all take
HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?")
OPEN_PATHS = ("/", "/page/")  # the page's own files: exact, or all below
REFUSED = 4401  # close codes of our own begin at 4000
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-cache",
}


@dataclass(frozen=True)
class Rules:
    """`hosts`: names that the server answers to; `any_address`: also to every numeric address."""

    hosts: frozenset[str]
    any_address: bool
    token: str | None

    def answers_to(self, host: str) -> bool:
        """Whether a `Host` header, port or none, names this server."""
        match = HOST.fullmatch(host)
        if match is None:
            return False
        name = match[1].lower().removesuffix(".")
        return name in self.hosts or (self.any_address and _is_address(name))

    def admits(self, authorization: str, protocols: list[str]) -> bool:
        """Whether the token needed was given; the time this takes tells nothing of it."""
        if self.token is None:
            return True
        given = [authorization.partition("Bearer ")[2], *(each.partition("token.")[2] for each in protocols)]
        return any(compare_digest(each.encode(), self.token.encode()) for each in given)


class Guard:
    """The layer. Refusals say in words what would be let through."""

    def __init__(self, app: App, rules: Rules) -> None:
        self._app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        refusal = self._refusal(scope, headers, host)
        secured = _with_headers(send, host if refusal is None else "")
        if refusal is None:
            await self._app(scope, receive, secured)
        elif scope["type"] == "websocket":
            await _refuse_socket(receive, send, scope.get("subprotocols", []), *refusal)
        else:
            await _refuse_request(secured, *refusal)

    def _refusal(self, scope: Scope, headers: dict[str, str], host: str) -> tuple[int, str] | None:
        if not self._rules.answers_to(host):
            return 421, "this server does not answer to that host; ask by its address, or start it with --allow-host"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return 403, "pages of another origin may not ask"
        if scope["type"] == "http" and _is_open(scope["path"]):
            return None
        if not self._rules.admits(headers.get("authorization", ""), scope.get("subprotocols", [])):
            return 401, "the token is missing or wrong; open the address that `sdk live` printed"
        return None


def _is_open(path: str) -> bool:
    return path == OPEN_PATHS[0] or path.startswith(OPEN_PATHS[1])


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _with_headers(send: Send, host: str) -> Send:
    """Every answer forbids what the page does not need: scripts, styles and addresses but its own."""
    sockets = f" ws://{host} wss://{host}" if host else ""  # older Safaris do not count them to 'self'
    policy = (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'{sockets}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    told = [(name.encode(), value.encode()) for name, value in {**HEADERS, "content-security-policy": policy}.items()]

    async def secured(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            ours = {name for name, _ in told}
            kept = [pair for pair in message.get("headers", []) if pair[0].lower() not in ours]
            message = {**message, "headers": [*kept, *told]}
        await send(message)

    return secured


async def _refuse_request(send: Send, status: int, words: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": words.encode()})


async def _refuse_socket(receive: Receive, send: Send, offered: list[str], status: int, words: str) -> None:
    """A missing token is told as a close code, which a page's script can see; all else is refused before that."""
    await receive()
    if status == 401:
        await send({"type": "websocket.accept", "subprotocol": PROTOCOL if PROTOCOL in offered else None})
        await send({"type": "websocket.close", "code": REFUSED, "reason": words})
    else:
        await send({"type": "websocket.close", "code": 1008, "reason": words})
