"""The options by which a verb's sources are opened.

add_source_arguments(parser)
check_forms(arguments, sources)                                  # UsageError; no sources: none of the options has a say
open_source(source, **source_options(arguments, source))
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sdk.cli._numbers import finite
from sdk.errors import UsageError

if TYPE_CHECKING:
    from sdk.media.sources import Source

__all__ = ["add_source_arguments", "check_forms", "source_options"]


def add_source_arguments(parser: argparse.ArgumentParser, *, live: bool = True) -> None:
    """`live`: with --live and --no-live; else it is as the source is."""
    opening = parser.add_argument_group("how sources are opened")
    parser.set_defaults(newest=None)
    if live:
        opening.add_argument(
            "--live",
            dest="newest",
            action=argparse.BooleanOptionalAction,
            help="the newest frame only; --no-live: every one (default: of cameras and streams the newest)",
        )
    opening.add_argument(
        "--reconnect",
        default="yes",
        choices=("yes", "no", "always"),
        help="open a live source again that is gone; always: also wait for one that is not there yet (default: yes)",
    )
    opening.add_argument(
        "--read-timeout", type=finite, metavar="S", help="without a frame for so long a source is gone (default: 10)"
    )
    opening.add_argument("--backend", choices=("auto", "opencv", "av"), help="what decodes (default: auto)")
    opening.add_argument("--hwaccel", metavar="NAME", help="a hardware decoder, by FFmpeg's name, such as cuda")
    opening.add_argument("--camera-format", metavar="F", help="of V4L2 cameras, such as MJPG:1280x720@30 or NV12")
    opening.add_argument("--raw", metavar="FORM", help="of the source '-', standard input: bgr24:1280x720, y4m, ...")


def check_forms(arguments: argparse.Namespace, sources: Sequence[Source]) -> None:
    """UsageError for a form of frames that no source has, or that one lacks."""
    from sdk.media.addresses import STDIN, is_camera
    from sdk.media.formats import camera_format_from, raw_format_from

    if not sources:
        _refuse_all(arguments)
    piped = any(source.address == STDIN for source in sources)
    if piped != (arguments.raw is not None):
        mend = "give --raw, such as bgr24:1280x720" if piped else "name the source '-', or leave --raw out"
        raise UsageError(f"--raw is the form of frames on standard input, the source '-'; {mend}")
    if arguments.raw is not None:
        raw_format_from(arguments.raw)
    if arguments.camera_format is not None:
        camera_format_from(arguments.camera_format)
        if not any(is_camera(source.address) for source in sources):
            raise UsageError("--camera-format is of V4L2 cameras, and no source is one; leave it out")


def _refuse_all(arguments: argparse.Namespace) -> None:
    """UsageError for an option of sources, where there is none."""
    asked = {
        "--live": arguments.newest,
        "--reconnect": None if arguments.reconnect == "yes" else arguments.reconnect,
        "--read-timeout": arguments.read_timeout,
        "--backend": arguments.backend,
        "--hwaccel": arguments.hwaccel,
        "--camera-format": arguments.camera_format,
        "--raw": arguments.raw,
    }
    for option, value in asked.items():
        if value is not None:
            raise UsageError(f"{option} says how a source is opened, and there is none; name one, or leave it out")


def source_options(arguments: argparse.Namespace, source: Source) -> dict[str, Any]:
    """The options of `open_source` for a source, of those that are asked for."""
    from sdk.media.addresses import STDIN, is_camera

    asked = {
        "live": arguments.newest,
        "reconnect": {"yes": True, "no": False, "always": "always"}[arguments.reconnect],
        "read_timeout_s": arguments.read_timeout,
        "backend": arguments.backend,
        "hwaccel": arguments.hwaccel,
        "camera_format": arguments.camera_format if is_camera(source.address) else None,
        "raw": arguments.raw if source.address == STDIN else None,
    }
    return {name: value for name, value in asked.items() if value is not None}
