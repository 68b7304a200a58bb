"""Where a CUDA toolkit's nvcc is: one rule, for the build of the extension and for `sdk doctor`. It compiles nothing.

Looked at in this order: $CUDA_HOME, $CUDA_PATH, PATH, /usr/local/cuda, the packages of the package index. A build loads
this file by its path, before the package is installed, so it needs the standard library alone.

    found = find_nvcc()
    found.path, found.place, nvcc_version(found.path)      # Path, "PATH", "13.5.37"
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PACKAGES", "FoundNvcc", "find_nvcc", "named_home", "nvcc_version"]

USUAL_HOME = Path("/usr/local/cuda")  # where the toolkit's installers and JetPack put it, without adding it to PATH
PACKAGES = "Python packages"
PROBE_SECONDS = 20


@dataclass(frozen=True)
class FoundNvcc:
    """An nvcc, or none: then `place` says where none was. `place` is the variable, 'PATH', a folder or `PACKAGES`."""

    path: Path | None
    place: str


def find_nvcc() -> FoundNvcc:
    """The first nvcc in the order above. A home that the environment names is the only place looked at."""
    named = named_home()
    if named is not None:
        variable, home = named
        nvcc = shutil.which("nvcc", path=str(home / "bin"))
        return FoundNvcc(Path(nvcc), variable) if nvcc else FoundNvcc(None, f"{variable}={home}")
    on_path = shutil.which("nvcc")
    if on_path:
        return FoundNvcc(Path(on_path), "PATH")
    usual = shutil.which("nvcc", path=str(USUAL_HOME / "bin"))
    if usual:
        return FoundNvcc(Path(usual), str(USUAL_HOME))
    for folder in sys.path:
        for home in sorted(Path(folder or ".").glob("nvidia/cu*"), reverse=True):
            packaged = shutil.which("nvcc", path=str(home / "bin"))
            if packaged:
                return FoundNvcc(Path(packaged), PACKAGES)
    return FoundNvcc(None, f"PATH, {USUAL_HOME} and the {PACKAGES}")


def named_home() -> tuple[str, Path] | None:
    """(variable, folder) where the environment names a toolkit, or None."""
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(variable):
            return variable, Path(os.environ[variable])
    return None


def nvcc_version(nvcc: Path) -> str:
    """As in '13.5.37', by asking it. OSError where it does not run, ValueError where it says something else."""
    try:
        told = subprocess.run(
            [nvcc, "--version"], capture_output=True, text=True, timeout=PROBE_SECONDS, check=False
        ).stdout
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{nvcc} gave no answer within {PROBE_SECONDS} s") from error
    version = re.search(r"\bV(\d+\.\d+\.\d+)", told)
    if version is None:
        raise ValueError(f"{nvcc} --version says no version")
    return version[1]
