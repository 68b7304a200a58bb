"""Processes below a process, as /proc tells of them.

for child in below(driver.pid): child.pid, child.title
"""

import os
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple


class Process(NamedTuple):
    pid: int
    title: str  # its command line; Ray's workers name there what they do


def below(pid):
    """All descendants of a process, and those that it started and that outlived their parents in its session."""
    children, titles = defaultdict(list), {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state = (folder / "stat").read_text().rpartition(")")[2].split()
            titles[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if state[0] != "Z":
            children[int(state[1])].append(int(folder.name))
    found, waiting = [], [pid]
    while waiting:
        for child in children[waiting.pop()]:
            found.append(Process(child, titles[child].strip()))
            waiting.append(child)
    return found


def alive(pids):
    return [pid for pid in pids if _state(pid) not in (None, "Z")]


def wait_until(met, seconds, what):
    """The first answer of `met()` that is true; AssertionError where none is in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = met()
        if answer:
            return answer
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds} s for {what}")


def kill(pid):
    """SIGKILL; nothing where it is gone."""
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        return


def _state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None
