"""How long it takes to begin: imports against another checkout, and README's first command in a fresh environment.

    python benchmarks/start.py --against CHECKOUT [--rounds 15]     # imports, both in turns; medians
    python benchmarks/start.py --fresh                              # seconds and megabytes; needs the package index

Imports are timed in new interpreters, by the processor time inside, which neighbours lengthen little, with numpy's own
beside them: what it takes nobody can save who computes with it. `--fresh` builds from source as a stranger would, in a
copy without build products.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

ROOT = Path(__file__).resolve().parents[1]
IMPORTS = ("import sdk", "from sdk import PoseEstimator", "import numpy")
TIMED = "from time import process_time; start = process_time(); {statement}; print(process_time() - start)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT")
    parser.add_argument("--fresh", action="store_true", help="run README's first command instead")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    if arguments.fresh:
        fresh()
    else:
        imports([ROOT, *([arguments.against.resolve()] if arguments.against else [])], arguments.rounds)


def imports(checkouts: list[Path], rounds: int) -> None:
    """A line a statement: milliseconds of each checkout, and this one's share of the other's."""
    for statement in IMPORTS:
        spent = [[import_ms(checkout, statement) for checkout in checkouts] for _ in range(rounds)]
        medians = [median(column) for column in zip(*spent, strict=True)]
        share = f"  {medians[0] / medians[1]:.2f}x" if len(medians) > 1 else ""
        print(f"{statement:32}{''.join(f'{each:8.1f} ms' for each in medians)}{share}")


def import_ms(checkout: Path, statement: str) -> float:
    code = TIMED.format(statement=statement)  # -c looks in the current folder before all others
    told = subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=True)
    return 1e3 * float(told.stdout)


def fresh() -> None:
    """README's first command in a copy of what git knows."""
    command = re.search(r"<!-- main-job -->\n```bash\n(.+?)\n```", (ROOT / "README.md").read_text(), re.S)
    assert command is not None
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    with tempfile.TemporaryDirectory() as name:
        subprocess.run(["xargs", "-0", "cp", "--parents", "-t", name], input=listed, cwd=ROOT, check=True)
        start = perf_counter()
        subprocess.run(["bash", "-euc", command[1]], cwd=name, check=True)
        seconds = perf_counter() - start
        bytes_there = sum(path.lstat().st_size for path in Path(name, ".venv").rglob("*") if not path.is_dir())
    print(f"{command[1]}\n{seconds:.0f} s, environment {bytes_there / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
