"""What `sdk live` and `sdk demo --live` share: the page's options, its sources, and its life until Ctrl-C.

add_page_arguments(parser)
return serve_page([Playback(...)], engine, arguments, check_page(arguments))
"""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdk.errors import UsageError
from sdk.files import check_place

if TYPE_CHECKING:
    from sdk.live.playback import Playback
    from sdk.live.serving import Address, ServingOptions
    from sdk.live.watching import Watch
    from sdk.manifest import Engine
    from sdk.media.opening import OpenSource
    from sdk.people.cameras import Cameras

__all__ = ["add_page_arguments", "check_page", "refuse_page_options", "serve_page"]

log = logging.getLogger("sdk.live")
TOKEN_VARIABLE = "SDK_LIVE_TOKEN"
DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")  # without one a browser would open in the terminal, or nowhere
PORT = 8642


def add_page_arguments(parser: argparse.ArgumentParser) -> None:
    """What the page can be told in every verb that opens it."""
    page = parser.add_argument_group("the page")
    page.add_argument("--port", type=int, default=PORT, help=f"of the page; 0 for any that is free (default: {PORT})")
    page.add_argument("--no-browser", action="store_true", help="print the address, open nothing")
    page.add_argument(
        "--host",
        default="127.0.0.1",
        help="0.0.0.0: reachable from elsewhere, which needs the token that is printed (default: this machine alone)",
    )
    page.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="another name that the page is asked by"
    )
    page.add_argument(
        "--token-file", type=Path, metavar="FILE", help=f"the token, in place of ${TOKEN_VARIABLE} or one made now"
    )
    page.add_argument("--viewers", type=int, default=32, metavar="N", help="who may look at once (default: 32)")
    page.add_argument("--health", action="store_true", help="answer /healthz")
    page.add_argument("--metrics", action="store_true", help="answer /metrics, for Prometheus")
    page.add_argument(
        "--record-to", type=Path, default=Path("recordings"), metavar="DIR", help="of recordings (default ./recordings)"
    )
    page.add_argument("--width", type=int, default=1280, help="most pixels across of a shown picture (default: 1280)")
    page.add_argument("--quality", type=int, default=80, help="of its JPEG, 1 to 100 (default: 80)")


def refuse_page_options(arguments: argparse.Namespace) -> None:
    """UsageError for an option of the page, where none is opened."""
    usual = argparse.ArgumentParser()
    add_page_arguments(usual)
    for name, value in vars(usual.parse_args([])).items():
        if getattr(arguments, name) != value:
            raise UsageError(f"--{name.replace('_', '-')} is of the live page; give --live too, or leave it out")


def check_page(arguments: argparse.Namespace) -> ServingOptions:
    """The page's options; an error for what cannot be, before a camera is opened."""
    from sdk.live.serving import ServingOptions, check_options

    for option, value, low, high in (
        ("--viewers", arguments.viewers, 1, 1000),
        ("--width", arguments.width, 16, 8192),
        ("--quality", arguments.quality, 1, 100),
    ):
        if not low <= value <= high:
            raise UsageError(f"{option} must be a number of {low} to {high} (got {value})")
    check_place(arguments.record_to / "recording.mp4")
    options = ServingOptions(
        host=arguments.host,
        port=arguments.port,
        token=_token(arguments),
        hosts=tuple(arguments.allow_host),
        viewers=arguments.viewers,
        health=arguments.health,
        metrics=arguments.metrics,
    )
    check_options(options)
    return options


def serve_page(
    sources: Sequence[OpenSource | Playback],
    engine: Engine | str | Path | None,
    arguments: argparse.Namespace,
    options: ServingOptions,
    **how: Any,
) -> int:
    """Open everything, print the address, serve until it is ended. 0 after Ctrl-C; the pipeline's error is raised."""
    from sdk.live.serving import Server
    from sdk.people.cameras import Cameras

    with Cameras(sources, engine, device=arguments.device, **how) as cameras:
        server = Server(_watch(cameras, sources, arguments), options)
        server.run(lambda address: _announce(address, browser=not arguments.no_browser))
    return 0


def _watch(cameras: Cameras, sources: Sequence[OpenSource | Playback], arguments: argparse.Namespace) -> Watch:
    from sdk.live.watching import Scene, Watch
    from sdk.runtime.confidence import scale_from_recipe

    recipe = cameras.engine.manifest.recipe
    scene = Scene(
        names=tuple(source.name for source in sources),
        skeleton=recipe.skeleton,
        scale=scale_from_recipe(recipe),
        engine=cameras.engine.folder.name,
        device=cameras.device,
        folder=arguments.record_to,
        live=tuple(source.is_live for source in sources),
        counts=lambda: _counts(cameras, sources),
        width=arguments.width,
        quality=arguments.quality,
    )

    def close() -> None:
        for source in sources:  # first: a thread may wait for one
            source.close()
        cameras.close()

    return Watch(cameras, scene, close=close)


def _counts(cameras: Cameras, sources: Sequence[OpenSource | Playback]) -> list[dict[str, int]]:
    """What each source counts, and what the cameras passed over of it."""
    told = []
    for source, passed_over in zip(sources, cameras.passed_over, strict=True):
        counts = source.counts.to_dict() if hasattr(source, "counts") else {}
        told.append({**counts, "dropped": counts.get("dropped", 0) + passed_over})
    return told


def _token(arguments: argparse.Namespace) -> str | None:
    """The one given, in a file or the environment: a command line is everybody's to read. Else made, where needed."""
    from sdk.live.serving import LOOPBACK
    from sdk.reading import bytes_from_file

    if arguments.token_file is not None:
        content = bytes_from_file(
            arguments.token_file,
            "the token's file",
            UsageError,
            "write 16 to 128 letters and digits into it",
            largest=4096,
        )
        return content.decode(errors="replace").strip()
    given = os.environ.get(TOKEN_VARIABLE)
    if given or arguments.host in LOOPBACK:
        return given or None
    return secrets.token_urlsafe(24)


def _announce(address: Address, *, browser: bool) -> None:
    """The address, and the page in a browser where there is a screen. A token is not shown to other programs."""
    print(f"live  {address.url}", flush=True)
    log.info("Ctrl-C ends it")
    if browser and not address.has_token and any(os.environ.get(name) for name in DISPLAYS):
        webbrowser.open(address.url)
