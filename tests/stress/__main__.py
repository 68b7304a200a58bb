"""An attack on the SDK, with figures: damaged engines and files, misused verbs, bombs, threads, soak, cycles, signals,
full disks, a hostile server, cameras that fail, rebuilds, daemon threads at the end, sanitizers. Outside CI;
every release runs it.

    python -m tests.stress                              # about 20 minutes on two idle cores
    python -m tests.stress --nightly                    # 1,000,000 calls, 10,000 mutants: some hours
    python -m tests.stress --scale 0.1 threads files    # a tenth of two attacks
    python -m tests.stress --seed 7 engines             # another attack of the same kind

Every attack prints what it did and saw. It ends with status 1 where the SDK lost, altered, leaked or let through
something: an exception that is no `SdkError`, a result of other bits, memory that grows, a file half-written. Nothing
here harms other software: mutants are read in a child process, and bombs are small enough to go off.
"""

import argparse
import logging
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from tests.stress import cameras, ends, loads, mutants, places, verbs
from tests.stress.findings import Findings

ATTACKS = {
    "engines": (mutants.engines, 400, 4000),
    "files": (mutants.files, 1200, 6000),
    "verbs": (verbs.verbs, 60, 2000),
    "bombs": (places.bombs, 1, 1),
    "threads": (loads.threads, 40_000, 700_000),
    "soak": (loads.soak, 15_000, 250_000),
    "ops": (loads.operations, 30_000, 50_000),
    "cycles": (loads.cycles, 500, 2000),
    "rebuilds": (ends.rebuilds, 150, 1000),
    "exits": (ends.exits, 15, 100),
    "signals": (ends.signals, 20, 200),
    "disks": (places.disks, 150, 1500),
    "server": (places.server, 150, 1500),
    "cameras": (cameras.cameras, 20, 100),
    "cameras-opencv": (cameras.cameras_opencv, 20, 100),
    "sanitizers": (places.sanitizers, 120, 1800),
}  # name -> what attacks, how much of it in a usual run and in a nightly one


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.stress", description=__doc__.partition("\n\n")[0])
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=f"{', '.join(ATTACKS)}; all of them by default")
    parser.add_argument("--nightly", action="store_true", help="1,000,000 calls and 10,000 mutants")
    parser.add_argument("--scale", type=float, default=1.0, help="how much of each attack")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.attacks) - set(ATTACKS))
    if unknown:
        parser.error(f"no attack is named {unknown[0]}; they are {', '.join(ATTACKS)}")
    cv2.setNumThreads(0)  # children are forked, and OpenCV's threads do not come along
    logging.disable(logging.CRITICAL)  # what the SDK says of what is wrong is wanted here
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    started, found = time.monotonic(), 0
    for name, (attack, usual, nightly) in ATTACKS.items():
        if not arguments.attacks or name in arguments.attacks:
            amount = max(1, round((nightly if arguments.nightly else usual) * arguments.scale))
            found += one(name, attack, amount, arguments.seed)
    print(f"{found or 'no'} findings in {time.monotonic() - started:.0f} s, seed {arguments.seed}")
    return 1 if found else 0


def one(name, attack, amount, seed):
    """Run one attack; how many findings it made."""
    findings, started = Findings(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        figures = attack(amount, np.random.default_rng([seed, len(name)]), Path(folder), findings)
    print(f"{name:>10}  {time.monotonic() - started:6.1f} s  {figures}", flush=True)
    for line in findings.lines():
        print(f"{'':10}  FOUND {line}", flush=True)
    return len(findings)


if __name__ == "__main__":
    sys.exit(main())
