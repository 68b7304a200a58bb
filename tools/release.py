#!/usr/bin/env python3
"""A release in one command: checked, made twice, compared, described and tried. Nothing is uploaded.

    python tools/release.py check                              # version and changelog
    python tools/release.py make --output dist                 # the release: every wheel and the sdist, twice; an hour
    python tools/release.py make --output dist --rehearse --machine x86_64 --python 3.12

The version stands in `sdk/__init__.py`. `--rehearse` lets the changelog keep its unreleased part. FOLDER gets the
distributions, `sbom.json` (CycloneDX) and `SHA256SUMS`. docs/release.md has the way from there.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from wheels import (
    PYTHONS,
    REQUIREMENTS,
    ROOT,
    SOURCES,
    emptied,
    environment,
    found_interpreter,
    interpreter,
    run,
    say,
    told,
)

KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")  # of Keep a Changelog 1.1.0
LINKED = {  # what the extension holds of others, which no environment lists: package -> its name in an SBOM
    "nanobind": "nanobind",
    "nvidia-cuda-runtime": "libcudart_static",
    "ziglang": "libc++ and libc++abi of zig",
}
HELD = {"simcc-edge-sdk", "numpy", "onnxruntime", "tensorrt-rtx"}  # whatever else an SBOM lists


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("check")
    make = verbs.add_parser("make")
    make.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="must be empty")
    make.add_argument("--rehearse", action="store_true")
    make.add_argument("--machine", action="append")
    make.add_argument("--python", action="append")
    make.add_argument("--work", type=Path, help="keeps compilers and environments for the next time")
    arguments = parser.parse_args()
    problems = changelog_problems((ROOT / "CHANGELOG.md").read_text(), version())
    if arguments.verb == "check" or not arguments.rehearse:
        problems += unreleased_problems((ROOT / "CHANGELOG.md").read_text(), version())
    if problems:
        sys.exit("\n".join(problems))
    if arguments.verb == "make":
        released(arguments)
    print(f"simcc-edge-sdk {version()}: {'made' if arguments.verb == 'make' else 'ready'}")
    return 0


def version() -> str:
    """The one of `sdk/__init__.py`."""
    for node in ast.parse((ROOT / "sdk/__init__.py").read_text()).body:
        if isinstance(node, ast.Assign) and "__version__" in (getattr(target, "id", "") for target in node.targets):
            return str(ast.literal_eval(node.value))
    raise AssertionError("sdk/__init__.py names no __version__")


def changelog_problems(text: str, current: str) -> list[str]:
    """What is not Keep a Changelog's form, each in words."""
    heads = re.findall(r"^## (.*)$", text, re.M)
    problems = [] if heads[:1] == ["[Unreleased]"] else ["CHANGELOG.md: the first part must be ## [Unreleased]"]
    numbers = []
    for head in heads[1:]:
        found = re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\](?: - \d{4}-\d{2}-\d{2})?", head)
        if found is None:
            problems.append(f"CHANGELOG.md: '## {head}' must be ## [1.2.3] - 2026-11-27")
        else:
            numbers.append(tuple(map(int, found.groups())))
    if numbers != sorted(set(numbers), reverse=True):
        problems.append("CHANGELOG.md: versions must stand once each, the newest first")
    for kind in re.findall(r"^### (.*)$", text, re.M):
        if kind not in KINDS:
            problems.append(f"CHANGELOG.md: '### {kind}' must be one of {', '.join(KINDS)}")
    if f"[{current}]" not in " ".join(heads):
        problems.append(f"CHANGELOG.md: no part for {current}, which sdk/__init__.py names")
    return problems


def unreleased_problems(text: str, current: str) -> list[str]:
    """What keeps the version of `sdk/__init__.py` from being released now."""
    parts = re.split(r"^## ", text, flags=re.M)[1:]
    problems = []
    if parts and parts[0].partition("\n")[2].strip():
        problems.append(
            "CHANGELOG.md: [Unreleased] holds entries: give them a version and a date, and sdk/__init__.py it"
        )
    newest = parts[1] if len(parts) > 1 else ""
    if not re.match(rf"\[{re.escape(current)}\] - \d{{4}}-\d{{2}}-\d{{2}}\n\s*\S", newest):
        problems.append(f"CHANGELOG.md: the newest part must be ## [{current}] - its date, with entries")
    return problems


def released(arguments: argparse.Namespace) -> None:
    output = arguments.output.resolve()
    if output.is_dir() and any(output.iterdir()):
        sys.exit(f"{output} must be empty: what was built before is not of this release")
    with tempfile.TemporaryDirectory() as name:
        work = (arguments.work or Path(name)).resolve()
        chosen = [f"--{key}={value}" for key in ("machine", "python") for value in getattr(arguments, key) or ()]
        for folder in (output, emptied(work / "again")):
            emptied(SOURCES)  # so that nothing is left of the build before
            made(folder, work / "tools", chosen)
        compare(output, work / "again")
        tools = environment(Path(sys.executable), work / "tools/tools", ["-r", str(REQUIREMENTS)])
        distributions = sorted(map(str, output.iterdir()))
        run([str(tools), "-m", "twine", "check", "--strict", *distributions], work)
        write_sbom(tools, output, work)
        tried(output)
    sums = [f"{digest(path)}  {path.name}" for path in sorted(output.iterdir())]
    (output / "SHA256SUMS").write_text("\n".join(sums) + "\n")


def made(output: Path, work: Path, chosen: list[str]) -> None:
    command = [sys.executable, str(ROOT / "tools/wheels.py"), "--output", str(output), "--work", str(work), *chosen]
    subprocess.run(command, check=True)


def compare(first: Path, second: Path) -> None:
    """Both builds in the same bytes."""
    one, other = ({path.name: digest(path) for path in folder.iterdir()} for folder in (first, second))
    differing = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    if differing:
        sys.exit(f"built twice, these differ: {', '.join(differing)}")
    say(f"built twice: {len(one)} files equal")


def write_sbom(tools: Path, output: Path, work: Path) -> None:
    """`sbom.json`: what an installation holds (with [rtx]), and what is linked into the extension."""
    env = environment(
        Path(sys.executable), emptied(work / "installed"), ["--find-links", str(output), "simcc-edge-sdk[rtx]"]
    )
    command = [str(tools.parent / "cyclonedx-py"), "environment", "--output-reproducible", "--of", "JSON", str(env)]
    sbom = json.loads(told(command))
    pins = dict(line.split("==") for line in REQUIREMENTS.read_text().splitlines() if "==" in line)
    for package, name in LINKED.items():
        reference = f"pkg:pypi/{package}@{pins[package]}"
        linked = {"type": "library", "name": name, "version": pins[package], "purl": reference, "bom-ref": reference}
        sbom["components"].append({**linked, "description": "linked into the extension"})
    lacking = HELD - {normal(component["name"]) for component in sbom["components"]}
    assert not lacking, f"the SBOM lacks {', '.join(sorted(lacking))}"
    (output / "sbom.json").write_text(json.dumps(sbom, indent=1, sort_keys=True) + "\n")


def normal(name: str) -> str:
    """A package's name as the index compares it: some write theirs with underscores."""
    return re.sub(r"[-_.]+", "-", name).lower()


def tried(output: Path) -> None:
    """The wheels of this machine by every Python that is here, with what README's first command brings."""
    for wheel in sorted(output.glob("*x86_64.whl")):
        for number in serves(wheel):
            python = interpreter(number) if number in PYTHONS else found_interpreter(number)
            if python is None:
                say(f"{wheel.name}: not tried with {number}, which is not here")
                continue
            subprocess.run([python, str(ROOT / "tools/try_wheel.py"), str(output), "--extra", "rtx"], check=True)


def serves(wheel: Path) -> list[str]:
    """The Pythons that a wheel is for."""
    tag = wheel.name.split("-")[2]
    oldest = int(tag.removeprefix("cp3"))
    newest = 14 if "abi3" in wheel.name else oldest
    return [f"3.{minor}" for minor in range(oldest, newest + 1)]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
