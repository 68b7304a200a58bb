"""What an attack found, each kind once with its count; and work done in a child process, so that its end is not ours.

findings.add("an exception that is no SdkError", "KeyError: 'a' (seed 3)")
answer, peak_mib = in_child(work, argument)          # an Ended where the child came to another end than its own
"""

import multiprocessing
import os
import resource
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from sdk.errors import SdkError

CHILD_S = 300


@dataclass(frozen=True)
class Ended:
    """How a child ended that gave no answer."""

    how: str


class Findings:
    """Kinds of findings with how often each was made, and its first example."""

    def __init__(self):
        self._counts, self._first = Counter(), {}

    def __len__(self):
        return len(self._counts)

    def add(self, kind, example=""):
        self._counts[kind] += 1
        self._first.setdefault(kind, str(example)[:300])

    def lines(self):
        return [f"{count} x {kind}: {self._first[kind]}" for kind, count in self._counts.items()]


def judged(work, *arguments):
    """('done', answer), ('refused', error class) for an SdkError, ('untyped', what and where) for anything else."""
    try:
        return "done", work(*arguments)
    except SdkError as error:
        return "refused", f"{type(error).__name__}: {error}"
    except BaseException as error:  # noqa: BLE001 (what it is, is the question)
        place = traceback.extract_tb(error.__traceback__)[-1]
        return (
            "untyped",
            f"{type(error).__name__}: {str(error)[:100]} ({Path(place.filename).name}:{place.lineno})",
        )


def in_child(work, *arguments):
    """(the answer of work(*arguments) in a forked child, the child's largest memory in MiB)."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    def run():
        ours.close()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what image libraries say of damaged pictures
        theirs.send((work(*arguments), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))

    child = context.Process(target=run)
    child.start()
    theirs.close()
    try:
        found = ours.recv() if ours.poll(CHILD_S) else (Ended(f"still at work after {CHILD_S} s"), 0.0)
    except EOFError:
        child.join()
        found = Ended(f"exit status {child.exitcode}"), 0.0
    if child.is_alive() and isinstance(found[0], Ended):
        child.kill()
    child.join()
    return found


def resident_mib():
    """Memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20
