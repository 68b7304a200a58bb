#!/usr/bin/env python3
"""Installs the wheel that fits this Python into an empty environment and runs it: what its user would see first.

    python3.13 tools/try_wheel.py dist [--extra rtx]

Run it by each Python to be tried; it needs the standard library and the package index. It holds that importing the
package does not so much as look for a driver, that its kernels use the instructions that this processor has (a wheel
can be right and slow), that it has its CUDA half, and that `sdk predict` gives poses; with the extra rtx, that `sdk
demo` does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

SEEN = """
import json, sys
import sdk
from sdk import PoseEstimator, _native, ops
print(json.dumps({"version": sdk.__version__, "file": _native.__file__, "instructions": ops.instruction_set(),
    "gpus": _native.cuda and _native.cuda.ARCHITECTURES}))
"""
PICTURE = """
import cv2, numpy
cv2.imwrite("picture.png", numpy.random.default_rng(0).integers(0, 256, (240, 320, 3), "uint8"))
"""
NEEDED = {"avx512": {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx2", "f16c"}, "avx2": {"avx2", "f16c"}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", type=Path, metavar="FOLDER")
    parser.add_argument("--extra", action="append", default=[], help="of the package, as rtx")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        installed(work / "env", arguments.wheels.resolve(), arguments.extra)
        seen = checked(work / "env/bin/python", work)
        poses = used(work / "env/bin", work) if "rtx" in arguments.extra else "the run time alone; "
        poses += predicted(work / "env/bin", work)
    python = f"Python {platform.python_version()} {platform.machine()}"
    name = Path(seen["file"]).name
    print(f"{python}: {seen['version']}, {name}, {seen['instructions']}, GPUs {seen['gpus']}; {poses}")
    return 0


def installed(folder: Path, wheels: Path, extras: list[str]) -> None:
    """An environment with the package of `wheels`, chosen by pip as for a user, and what it depends on."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-index", "--no-deps", "--find-links", str(wheels), "simcc-edge-sdk"], check=True)
    wanted = f"simcc-edge-sdk[{','.join(extras)}]" if extras else "simcc-edge-sdk"
    subprocess.run([*pip, "--find-links", str(wheels), "--only-binary", "simcc-edge-sdk", wanted], check=True)


def checked(python: Path, work: Path) -> dict[str, str]:
    """What the package says of itself, after a look at it."""
    seen = json.loads(told([str(python), "-I", "-c", SEEN], work, loader_log(work)))
    assert seen["file"].startswith(str(work)), f"the extension is not the wheel's: {seen['file']}"
    assert seen["instructions"] == best_instructions(), f"{seen['instructions']} kernels, not {best_instructions()}"
    assert seen["gpus"], "no CUDA half"
    libraries = looked_for(work)
    assert libraries, "the dynamic loader kept no log of what it looked for"
    assert not [name for name in libraries if name.startswith("libcuda.so")], (
        f"importing looks for a driver: {libraries}"
    )
    return seen


def loader_log(folder: Path) -> dict[str, str]:
    """The environment variables that make glibc's loader tell in `folder` what it looks for, found or not."""
    return {"LD_DEBUG": "libs", "LD_DEBUG_OUTPUT": str(folder / "loader")}


def looked_for(folder: Path) -> list[str]:
    """The names of the libraries that a program with `loader_log` needed or opened."""
    logs = [path.read_text(errors="replace") for path in folder.glob("loader.*")]
    return sorted({name for log in logs for name in re.findall(r"find library=(\S+)", log)})


def best_instructions() -> str:
    """The set of kernels that this processor can run, by the kernel's word."""
    if platform.machine() != "x86_64":
        return "baseline"
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split(":")[1].split()}
    return next((name for name, needed in NEEDED.items() if needed <= flags), "baseline")


def used(scripts: Path, work: Path) -> str:
    """The demo: a plan is built, and its figure found."""
    demo = json.loads(told([str(scripts / "sdk"), "demo", "--json", "--frames", "8", "--output", "seen"], work))
    assert demo["accuracy"]["pck_0.2"] > 80, f"the demo's figure is not found: {demo['accuracy']}"  # seen: 92
    return f"demo on {demo['device']} ({demo['device_reason']}) with a plan of {demo['compiler']}; "


def predicted(scripts: Path, work: Path) -> str:
    """A picture's poses, by the bundled network."""
    told([str(scripts / "python"), "-I", "-c", PICTURE], work)
    command = ["predict", "body17-nano-128x128.fp32", "picture.png", "--device", "cpu", "--json"]
    (record,) = [json.loads(line) for line in told([str(scripts / "sdk"), *command], work).splitlines()]
    joints = [joint for person in record["keypoints"] for joint in person]
    assert len(joints) == 17, f"{len(joints)} joints of one person with 17"
    return f"predict: {len(joints)} joints"


def told(command: list[str], work: Path, variables: dict[str, str] | None = None) -> str:
    """What a command writes on stdout; all it said where it fails. It sees no checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | (variables or {})
    done = subprocess.run(command, cwd=work, env=kept, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}\nfailed with status {done.returncode}: {' '.join(command)}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
