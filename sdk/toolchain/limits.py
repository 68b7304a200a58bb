"""Work on files made elsewhere, in a child process with a limit of time and of memory.

A graph of a few bytes can ask for any amount of either, and a parser's crash must not be ours. The child gives back
plain data: JSON and bytes, never objects. What it logs is logged here.

    facts, graph = limited("sdk.toolchain.foreign", "take_in_child", request, subject="'end2end.onnx'", size=9_000)
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sdk import errors
from sdk.errors import GraphError, SdkError
from sdk.reading import json_from_text

__all__ = ["MEMORY_BYTES", "TIME_S", "child", "limited"]

TIME_S = 300  # on two shared cores RTMPose-l, 106 MB, takes 23 s, and RTMW-l, 218 MB, 53 s
MEMORY_BYTES = 6 << 30  # of addresses; 0.7 GiB are packages, RTMPose-l takes 2.3 GiB in all (2 cores; threads add)
MEMORY_FACTOR = 16  # and so many bytes for each of the file: copies as protobuf, arrays, and in the run time
NO_MEMORY = ("bad_alloc", "Failed to allocate memory", os.strerror(errno.ENOMEM))  # ONNX Runtime has no class for it
BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from sdk.toolchain.limits import child; child()"

Answer = tuple[dict[str, Any], bytes]

log = logging.getLogger("sdk")


def limited(module: str, function: str, request: Mapping[str, Any], *, subject: str, size: int) -> Answer:
    """What `function(request)` of `module` gives in a child process. GraphError, naming `subject`, past a limit.

    `size`: bytes of the file that is worked on. An SdkError of the child is raised here as what it is.
    """
    memory = MEMORY_BYTES + MEMORY_FACTOR * size
    with tempfile.TemporaryDirectory(prefix="sdk-graph-") as folder:
        answer = Path(folder) / "answer"
        order = {"module": module, "function": function, "request": request, "answer": str(answer), "memory": memory}
        status, told = _run(json.dumps({**order, "level": log.getEffectiveLevel()}), subject)
        if status != 0 or not answer.is_file():
            raise GraphError(
                f"{subject} ended the process that read it, which had {memory >> 30} GiB of memory ({_ended(status)}"
                f"{told}); export it anew, without what makes it large or damaged"
            )
        return _read(answer)


def child() -> None:
    """The child's side: take the order from standard input, obey the limits, write the answer."""
    order = json_from_text(sys.stdin.read(), "the order of the parent process", GraphError)
    _limit(resource.RLIMIT_AS, order["memory"])
    _limit(resource.RLIMIT_CPU, TIME_S * 8)  # should the parent be gone
    _limit(resource.RLIMIT_CORE, 0)
    records: list[tuple[int, str]] = []
    log.setLevel(order["level"])
    log.addHandler(_Kept(records))
    log.propagate = False
    work: Callable[[dict[str, Any]], Answer] = getattr(importlib.import_module(order["module"]), order["function"])
    try:
        facts, content = work(order["request"])
        head: dict[str, Any] = {"facts": facts}
    except SdkError as error:
        if _for_want_of_memory(error):
            raise
        head, content = {"error": [type(error).__name__, str(error)]}, b""
    line = json.dumps({**head, "log": records}).encode() + b"\n"
    Path(order["answer"]).write_bytes(line + content)


def _for_want_of_memory(error: BaseException | None) -> bool:
    """Whether this error, or one it came from, is the limit's and not the file's."""
    if error is None:
        return False
    told = isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY)
    return told or _for_want_of_memory(error.__cause__)


class _Kept(logging.Handler):
    def __init__(self, records: list[tuple[int, str]]) -> None:
        super().__init__()
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append((record.levelno, record.getMessage()))


def _limit(what: int, value: int) -> None:
    """Set a limit, or keep the one that the process has where it is lower."""
    _, most = resource.getrlimit(what)
    lowest = value if most == resource.RLIM_INFINITY else min(value, most)
    resource.setrlimit(what, (lowest, lowest))


def _run(order: str, subject: str) -> tuple[int, str]:
    """(exit status, last line of its error output) of the child; it does not outlive this call."""
    process = subprocess.Popen(
        [sys.executable, "-c", BOOT, json.dumps(sys.path)],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
        start_new_session=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        _, told = process.communicate(order, timeout=TIME_S)
    except subprocess.TimeoutExpired as error:
        raise GraphError(
            f"{subject} cannot be worked on within {TIME_S} seconds; export it anew, without what makes it slow"
        ) from error
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    return process.returncode, f": {lines[-1][:200]}" if lines else ""


def _ended(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"status {status}"


def _read(path: Path) -> Answer:
    head, _, content = path.read_bytes().partition(b"\n")
    answer = json_from_text(head, "the answer of the child process", GraphError)
    for level, message in answer["log"]:
        log.log(level, "%s", message)
    if "error" in answer:
        kind, message = answer["error"]
        raise getattr(errors, kind)(message)
    return answer["facts"], content
