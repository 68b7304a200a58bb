"""The command line's end: exit statuses, and what is said when standard output or standard error cannot be written."""

import argparse
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sdk import cli
from sdk.errors import EngineError, InputError, UsageError

ROOT = Path(__file__).resolve().parents[1]


def verb(run):
    """`models` replaced by a verb that does `run`."""

    def module(name):
        return argparse.Namespace(add_arguments=lambda parser: None, run=run)

    return module


def raising(error):
    def run(arguments):
        raise error

    return run


STATUSES = {
    "done": (lambda arguments: 0, 0, ""),
    "partly done": (lambda arguments: 1, 1, ""),
    "failed": (raising(EngineError("engine 'e' is not there")), 1, "sdk models: engine 'e' is not there\n"),
    "wrong input": (raising(InputError("frame is grey")), 1, "sdk models: frame is grey\n"),
    "a broken package": (
        raising(ImportError("libGL.so.1: cannot open shared object file")),
        1,
        "sdk models: a package that it needs cannot be imported (libGL.so.1: cannot open shared object file); "
        "`sdk doctor` names the mend\n",
    ),
    "misused": (raising(UsageError("name an engine")), 2, "sdk models: name an engine\n"),
    "a file that nobody foresaw": (
        raising(PermissionError(13, "Permission denied", "/data/a.json")),
        1,
        "sdk models: '/data/a.json' cannot be used (Permission denied); check the path and its rights\n",
    ),
    "a fault that nobody foresaw": (
        raising(TypeError("'int' is no 'str'\nand more")),
        1,
        "sdk models: TypeError: 'int' is no 'str'; this is a fault of the SDK or of a library it uses: --debug shows "
        "where, please report it\n",
    ),
    "interrupted": (raising(KeyboardInterrupt()), 1, "sdk models: interrupted; no result was left half-written\n"),
}


@pytest.mark.parametrize(("run", "status", "said"), STATUSES.values(), ids=STATUSES)
def test_the_exit_status_says_how_it_ended(monkeypatch, capsys, run, status, said):
    monkeypatch.setattr(cli, "import_module", verb(run))
    assert cli.main(["models"]) == status
    assert capsys.readouterr().err == said


def test_debug_shows_where_an_error_comes_from(monkeypatch):
    monkeypatch.setattr(cli, "import_module", verb(raising(UsageError("name an engine"))))
    with pytest.raises(UsageError):
        cli.main(["models", "--debug"])


# `sdk` whose `models` prints two megabytes, or ends in an error
PROGRAM = """
import argparse, sys
from sdk import cli
from sdk.errors import EngineError
def run(arguments):
    if arguments.broken:
        raise EngineError("engine e is not there")
    print(("x" * 99 + "\\n") * 20000)
    return 0
def add_arguments(parser):
    parser.add_argument("--broken", action="store_true")
cli.import_module = lambda name: argparse.Namespace(add_arguments=add_arguments, run=run)
sys.exit(cli.main())
"""
FULL = "sdk: standard output cannot be written (No space left on device); make room or choose another place\n"
CLOSED = "sdk: standard output is closed; send it to a file, or to /dev/null\n"
STREAMS = {
    "closed": ("models >&-", 1, CLOSED),
    "full": ("models >/dev/full", 1, FULL),
    "help, full": ("--help >/dev/full", 1, FULL),
    "a reader that left": ("models > >(true)", 1, ""),
    "errors closed": ("models 2>&- >/dev/null", 0, ""),
    "an error, errors closed": ("models --broken 2>&-", 1, ""),
}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("unbuffered", ["", "-u"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize(("words", "status", "said"), STREAMS.values(), ids=STREAMS)
def test_a_stream_that_takes_nothing_is_told_in_one_sentence(words, status, said, unbuffered):
    line = f"{shlex.quote(sys.executable)} {unbuffered} -c {shlex.quote(PROGRAM)} {words}"
    done = subprocess.run(["/bin/bash", "-c", line], capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", said)


def test_the_last_wall_names_the_files_that_were_given(monkeypatch, capsys):
    def run(arguments):
        arguments.boxes = Path("boxes.json")
        raise RecursionError

    monkeypatch.setattr(cli, "import_module", verb(run))
    assert cli.main(["models"]) == 1

    assert "sdk models: RecursionError: no words (files given: 'boxes.json'); this" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_results_reach_an_output_that_lacks_their_letters(encoding):
    code = "import sys\nfrom sdk.cli._stdout import guarded_stdout\nwith guarded_stdout(): print('2 × 3 \\udcff')"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, env={**os.environ, "PYTHONIOENCODING": encoding}
    )
    assert run.stdout == (b"2 \\xd7 3" if encoding == "ascii" else "2 × 3".encode()) + b" \\udcff\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_supervisor_stops_it_as_ctrl_c_does(monkeypatch, capsys, number):
    monkeypatch.setattr(cli, "import_module", verb(lambda _: signal.raise_signal(number)))
    assert cli.main(["models"]) == 1
    assert capsys.readouterr().err == "sdk models: interrupted; no result was left half-written\n"
