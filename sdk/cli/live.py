"""`sdk live [SOURCE ...] [ENGINE]`: cameras, streams and recordings on a page, with the persons in them.

Without a source, this machine's first camera. The last word is the engine where it names one: a folder with an
engine.json, a bundled engine, or a recipe. A recording runs at its own pace, again and again. Ctrl-C ends it.

    sdk live 0 rtsp://yard/1 body.fp16 --detector rtmdet.onnx
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdk.cli._detectors import fetched
from sdk.cli._numbers import turns
from sdk.cli._opening import add_source_arguments, check_forms, source_options
from sdk.cli._page import add_page_arguments, check_page, serve_page
from sdk.errors import InputError, UsageError
from sdk.manifest import MANIFEST_NAME
from sdk.resources import bundled_engines

if TYPE_CHECKING:
    from sdk.live.playback import Playback
    from sdk.media.opening import OpenSource
    from sdk.media.sources import Source
    from sdk.media.videos import SourceFrame

__all__ = ["add_arguments", "live_source", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words",
        metavar="SOURCE ... ENGINE",
        nargs="*",
        help="cameras (0, /dev/video0), streams (rtsp://...), recordings; then the engine (default: the bundled one)",
    )
    parser.add_argument("--once", action="store_true", help="recordings end at their end")
    add_source_arguments(parser)
    who = parser.add_argument_group("who is in the picture")
    who.add_argument(
        "--detector",
        type=Path,
        metavar="D",
        help="its engine, ONNX file, deploy zip or catalogue name; without one, one person is followed",
    )
    who.add_argument("--detect-every", type=turns, default=1, metavar="N", help="detect in every Nth frame, or auto")
    who.add_argument("--max-persons", type=int, metavar="N", help="of a frame (default: all)")
    how = parser.add_argument_group("how")
    how.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    how.add_argument("--threads", type=int, help="of ONNX Runtime and the native ops (default: all cores, and one)")
    how.add_argument("--refine", default="none", choices=("none", "parabola", "dark", "expectation"))
    add_page_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    from sdk.media.cv_feed import opencv_told

    if arguments.detect_every != 1 and not arguments.detector:
        raise UsageError(f"--detect-every {arguments.detect_every} needs a --detector; give one, or leave it out")
    options = check_page(arguments)
    words, engine = _words(arguments.words)
    named = _named(words, told=engine is not None)
    check_forms(arguments, named)
    detector = None if arguments.detector is None else fetched(arguments.detector)
    with opencv_told(named):
        return serve_page(
            _opened(words, named, arguments),
            engine,
            arguments,
            options,
            detector=detector,
            detect_every=arguments.detect_every,
            max_persons=arguments.max_persons,
            threads=arguments.threads,
            refine=arguments.refine,
        )


def _words(words: list[str]) -> tuple[list[str], str | None]:
    """Sources, and the engine that the last word may name."""
    engine = None
    if words and _is_engine(words[-1]):
        engine, words = words[-1], words[:-1]
    if words:
        return words, engine
    if not list(Path("/dev").glob("video*")):
        raise UsageError("this machine has no camera; give a stream or a recording, or see `sdk demo --live`")
    return ["0"], engine


def _is_engine(word: str) -> bool:
    """Whether it names an engine, or a recipe, of which one is or may be built."""
    from sdk.recipe_files import names_of_kind
    from sdk.runtime.opening import bundled_name

    bundled = bundled_name(word)
    if (Path(word) / MANIFEST_NAME).is_file() or bundled == word:
        return True
    if Path(word).exists():
        return False
    return bundled is not None or word in (*names_of_kind("pose"), *names_of_kind("detector"))


def _named(words: list[str], *, told: bool) -> list[Source]:
    """The words' sources. InputError for a word that is none; of the last one, unless an engine was `told`, it says how
    an engine is named."""
    from sdk.media.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES, sources_from

    named = []
    for number, word in enumerate(words, 1):
        try:
            named.append(sources_from([word])[0])
        except InputError as error:
            if told or number < len(words) or Path(word).suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
                raise
            raise InputError(
                f"{error}; '{word}' was taken for a source: an engine is a folder with an {MANIFEST_NAME}, or one of "
                f"{', '.join(bundled_engines())}"
            ) from error
    return named


def _opened(words: list[str], named: list[Source], arguments: argparse.Namespace) -> list[OpenSource | Playback]:
    """Each word's source, by the options that are for it."""
    return [
        live_source(word, repeat=not arguments.once, **source_options(arguments, source))
        for word, source in zip(words, named, strict=True)
    ]


def live_source(word: str, *, repeat: bool = True, **how: Any) -> OpenSource | Playback:
    """A live source as it is, a recording at its pace. `how`: options of `open_source`."""
    from sdk.live.playback import Playback
    from sdk.media.addresses import STDIN
    from sdk.media.opening import open_source

    found = open_source(word, **how)
    if found.is_live:
        return found
    return Playback(found.name, lambda: _frames_of(word, how), repeat=repeat and word != STDIN)


def _frames_of(word: str, how: dict[str, Any]) -> Iterator[SourceFrame]:
    """One showing of a recording, closed with it."""
    from sdk.media.opening import open_source

    with open_source(word, **how) as frames:
        yield from frames
