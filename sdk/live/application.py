"""The web application: the page's files, the WebSocket of each viewer, and what operators ask. Who may ask is decided
before (`guard`); what is shown comes from `watching`.

    app = application(watch, viewers, rules, health=True, metrics=True)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from sdk.errors import InputError, SdkError
from sdk.live.guard import PROTOCOL, Guard, Rules
from sdk.live.mailbox import Mailbox
from sdk.live.prometheus import CONTENT_TYPE, exposition
from sdk.live.viewers import FullError, Viewers
from sdk.live.watching import Watch
from sdk.live.wire import text_message
from sdk.reading import json_from_text

__all__ = ["MESSAGE_BYTES", "application"]

log = logging.getLogger(__name__)
PAGE = Path(__file__).parent / "page"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
MESSAGE_BYTES = 4096  # of a viewer's messages: the longest has 40
SEND_S = 5.0  # for one message: who takes none for so long has stopped reading
SILENT_S = 10.0  # frames under way, and not a word that they came
STALE_S = 10.0  # without a frame, while it runs: not healthy
BUSY, SLOW, WRONG = 1013, 4408, 1008  # close codes


def application(watch: Watch, viewers: Viewers, rules: Rules, *, health: bool, metrics: bool) -> Guard:
    """Everything that can be asked, behind the guard."""
    routes: list[BaseRoute] = [Route("/", _file_route("index.html"))]
    routes += [Route(f"/page/{path.name}", _file_route(path.name)) for path in sorted(PAGE.iterdir())]
    routes.append(WebSocketRoute("/watch", partial(_viewer, watch, viewers)))
    if health:
        routes.append(Route("/healthz", partial(_health, watch)))
    if metrics:
        routes.append(Route("/metrics", partial(_metrics, watch, viewers)))
    return Guard(Starlette(routes=routes), rules)


def _file_route(name: str) -> Callable[[Request], Awaitable[Response]]:
    """A file of the page, read once."""
    content, kind = (PAGE / name).read_bytes(), KINDS[Path(name).suffix]

    async def answer(_: Request) -> Response:
        return Response(content, media_type=kind)

    return answer


async def _health(watch: Watch, _: Request) -> Response:
    """200 where a frame has come lately, or nobody wants one; else 503. The last frame's age is of the freshest."""
    ages = [watch.gauges.since_last_s(camera) for camera in range(len(watch.gauges.cameras))]
    known = [age for age in ages if age is not None]
    state = watch.health()
    stale = state == "running" and (not known or min(known) > STALE_S)
    told = {
        "status": "stale" if stale else state,
        "device_lost": watch.lost,
        "last_frame_age_s": round(min(known), 3) if known else None,
        "cameras": {
            gauge.name: None if age is None else round(age, 3)
            for gauge, age in zip(watch.gauges.cameras, ages, strict=True)
        },
    }
    well = told["status"] in ("running", "stopped", "ended")
    return JSONResponse(told, 200 if well else 503)


def _metrics(watch: Watch, viewers: Viewers, _: Request) -> Response:
    """Sensors are read here, from files and a driver: no coroutine, so that Starlette runs it beside the loop."""
    text = exposition(watch.statistics(), watch.gauges, lost=watch.lost, replaced=viewers.replaced)
    return PlainTextResponse(text, media_type=CONTENT_TYPE)


async def _viewer(watch: Watch, viewers: Viewers, socket: WebSocket) -> None:
    """One viewer, from his arrival to his leave: one task sends, one hears, whichever ends first ends both."""
    await socket.accept(subprotocol=PROTOCOL if PROTOCOL in socket.scope["subprotocols"] else None)
    try:
        with viewers.admitted() as mailbox:
            tasks = [
                asyncio.create_task(_send(watch, viewers, socket, mailbox)),
                asyncio.create_task(_hear(watch, socket, mailbox)),
            ]
            done, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            for task in done:
                task.result()
    except FullError as error:
        await socket.close(BUSY, str(error))
    except WebSocketDisconnect:
        return
    except RuntimeError:  # Starlette's, of a task whose socket the other one, or the viewer, has closed
        if WebSocketState.DISCONNECTED not in (socket.application_state, socket.client_state):
            raise


async def _send(watch: Watch, viewers: Viewers, socket: WebSocket, mailbox: Mailbox) -> None:
    """What the mailbox has, one after the other, until the viewer does not keep up."""
    while True:
        item = await mailbox.take()
        try:
            if isinstance(item, str):
                await asyncio.wait_for(socket.send_text(item), SEND_S)
            else:
                await asyncio.wait_for(socket.send_bytes(item.message), SEND_S)
                watch.gauges.note_stage("send", 1e3 * (monotonic() - item.captured_s))
        except asyncio.TimeoutError:
            break
        if mailbox.silent_s() > SILENT_S:
            break
    viewers.slow += 1
    log.info("a viewer did not keep up and was sent away; its page comes back by itself")
    await _close(socket, SLOW, "too slow")


async def _hear(watch: Watch, socket: WebSocket, mailbox: Mailbox) -> None:
    """What the viewer says: which frames came, and what the controls do."""
    async for text in socket.iter_text():
        try:
            message = json_from_text(text, "a viewer's message", InputError)
            if not isinstance(message, dict) or not isinstance(message.get("do"), str):
                raise InputError("a viewer's message must be a table with a word 'do'")
            if message["do"] == "arrived":
                mailbox.arrived(_whole(message, len(watch.gauges.cameras)))
            else:
                await _control(watch, message)
        except InputError as error:
            await _close(socket, WRONG, str(error)[:120])
            return
        except SdkError as error:
            mailbox.put_text("notice", text_message("notice", words=str(error)))


async def _control(watch: Watch, message: dict[str, Any]) -> None:
    """One control of the page. Files are opened and closed beside the loop."""
    deeds: dict[str, Callable[[], None]] = {
        "start": watch.start,
        "stop": watch.stop,
        "record": watch.record,
        "finish": watch.finish,
    }
    do = message["do"]
    if do == "smooth":
        value = message.get("value")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InputError(f"smoothing must be a number of 0 to 1 (got {value!r})")
        watch.smooth(float(value))
    elif do in deeds:
        await asyncio.to_thread(deeds[do])
    else:
        raise InputError(f"do must be one of arrived, smooth, {', '.join(deeds)} (got {do!r})")


def _whole(message: dict[str, Any], cameras: int) -> int:
    camera = message.get("camera")
    if type(camera) is not int or not 0 <= camera < cameras:
        raise InputError(f"camera must be a number of 0 to {cameras - 1} (got {camera!r})")
    return camera


async def _close(socket: WebSocket, code: int, words: str) -> None:
    """Say goodbye, if he listens."""
    try:
        await asyncio.wait_for(socket.close(code, words), 1.0)
    except (asyncio.TimeoutError, RuntimeError, WebSocketDisconnect):
        log.debug("a viewer was gone before the goodbye")
