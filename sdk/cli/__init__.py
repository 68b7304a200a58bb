"""The command line: `sdk VERB`. One file a verb; each imports its phase inside `run`.

A verb's module has `add_arguments(parser)` and `run(arguments) -> int`; only the verb asked for is imported. Results go
to stdout, logs and progress to stderr. Exit 0 done, 1 failed, 2 usage.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from sdk import __version__
from sdk.cli._stdout import StdoutError, guarded_stdout
from sdk.errors import SdkError, UsageError
from sdk.interrupts import stopping_alike

__all__ = ["VERBS", "main"]

VERBS = {
    "models": "list the catalogue's networks",
    "doctor": "say what this machine has, what is missing, and the command that mends it",
    "export": "write a network as an ONNX graph, compared with torch on real crops",
    "calibrate": "collect activation ranges of real crops into a calibration table",
    "build-engine": "turn a recipe or an ONNX file into an engine",
    "inspect": "show an engine's manifest, tensors and precisions, and verify its files",
    "predict": "run an engine on images, folders and videos",
    "annotate": "run an engine on an archive: millions of pictures, years of video; rows in Parquet",
    "live": "show cameras, streams and recordings on a page, with the persons in them",
    "verify": "measure an engine's accuracy, or compare two engines",
    "benchmark": "measure an engine's latency and throughput, stage by stage",
    "export-triton": "write a Triton model repository of an engine",
    "train": "train or fine-tune a network on COCO-format data",
    "demo": "build the bundled engine and run it on a clip, with accuracy and latency",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; the process's exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if sys.stderr is None:  # closed: nothing is said
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (open to the end)
    if sys.stdout is None:  # closed: the next file to be opened would take its number, and the results with it
        print("sdk: standard output is closed; send it to a file, or to /dev/null", file=sys.stderr)
        return 1
    try:
        with stopping_alike(), guarded_stdout():
            return _status_of(words)
    except StdoutError as error:
        if not error.reader_left:  # as in `sdk models | head`: the reader has what it wanted
            print(f"sdk: {error}; make room or choose another place", file=sys.stderr)
        return 1


def _status_of(words: list[str]) -> int:
    arguments = _parser(words).parse_args(words)
    _log_to_stderr(arguments)
    try:
        status: int = arguments.run(arguments)
        return status
    except SdkError as error:
        if arguments.debug:
            raise
        print(f"sdk {arguments.verb}: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except ImportError as error:
        if arguments.debug:
            raise
        print(
            f"sdk {arguments.verb}: a package that it needs cannot be imported ({error}); `sdk doctor` names the mend",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(f"sdk {arguments.verb}: interrupted; no result was left half-written", file=sys.stderr)
        return 1
    except StdoutError:
        raise
    except Exception as error:  # the last wall: what no module of the SDK has put into words
        if arguments.debug:
            raise
        print(f"sdk {arguments.verb}: {_unforeseen(error, arguments)}", file=sys.stderr)
        return 1


def _unforeseen(error: Exception, arguments: argparse.Namespace) -> str:
    """An error that has no words of its own, with the file that it names, else with those that were given."""
    if isinstance(error, OSError) and isinstance(error.filename, (str, bytes)):
        return f"'{os.fsdecode(error.filename)}' cannot be used ({error.strerror}); check the path and its rights"
    given = ", ".join(f"'{value}'" for value in vars(arguments).values() if isinstance(value, Path))
    told = f"{type(error).__name__}: {str(error).partition(chr(10))[0] or 'no words'}"
    return (
        f"{told}{f' (files given: {given})' if given else ''}; this is a fault of the SDK or of a library it uses: "
        "--debug shows where, please report it"
    )


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sdk", description="SimCC pose networks, from checkpoint to TensorRT to poses."
    )
    parser.add_argument("--version", action="version", version=f"simcc-edge-sdk {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, purpose in VERBS.items():
        sub = verbs.add_parser(verb, help=purpose, description=purpose[0].upper() + purpose[1:] + ".")
        if verb not in words:
            continue
        module = import_module(f"sdk.cli.{verb.replace('-', '_')}")
        sub.add_argument("-v", "--verbose", action="store_true", help="more in the log")
        sub.add_argument("-q", "--quiet", action="store_true", help="warnings and errors only")
        sub.add_argument("--debug", action="store_true", help="errors with their traceback")
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    return parser


def _log_to_stderr(arguments: argparse.Namespace) -> None:
    level = logging.DEBUG if arguments.verbose else logging.WARNING if arguments.quiet else logging.INFO
    logging.basicConfig(level=logging.WARNING, format="%(levelname).1s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("sdk").setLevel(level)
