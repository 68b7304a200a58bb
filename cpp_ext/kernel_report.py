"""Prints what the compiler made of the CUDA kernels: registers, spills, shared memory and occupancy, as a table.

    python cpp_ext/kernel_report.py          # needs nvcc; no GPU

Occupancy is computed from the published limits of each architecture, for the block sizes the launchers use.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from build_native import CUDA_SOURCES, find_toolkit, nvcc_flags

ROOT = Path(__file__).resolve().parent.parent
BLOCK_THREADS = {"crop": 256, "decode": 128}
# Compute capability -> (threads, blocks, KiB of shared memory) of one multiprocessor; all have 65536 registers.
LIMITS = {
    75: (1024, 16, 64), 80: (2048, 32, 164), 86: (1536, 16, 100), 87: (1536, 16, 164), 89: (1536, 24, 100),
    90: (2048, 32, 228), 100: (2048, 32, 228), 110: (2048, 32, 228), 120: (1536, 24, 100),
}  # fmt: skip
ENTRY = re.compile(r"Compiling entry function '(\w+)' for 'sm_(\d+)'")
SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers(?:.*?(\d+) bytes smem)?")


@dataclass(frozen=True)
class Kernel:
    """One kernel on one architecture."""

    name: str
    architecture: int
    registers: int
    spilled_bytes: int
    shared_bytes: int

    @property
    def occupancy(self) -> float:
        """Resident threads over the most there can be. Registers come in units of 256 a warp, shared memory of 128."""
        threads, blocks, shared_kib = LIMITS[self.architecture]
        block = BLOCK_THREADS[self.name.split()[0]]
        per_warp = -(-self.registers * 32 // 256) * 256
        by_registers = 65536 // per_warp // (block // 32)
        shared = -(-self.shared_bytes // 128) * 128 + 1024  # the runtime keeps 1 KiB a block
        resident = min(by_registers, threads // block, blocks, shared_kib * 1024 // shared)
        return resident * block / threads


def readable(symbol: str) -> str:
    """'crop NV12 half' and the like, from a mangled kernel name."""
    op = "crop" if "crop_kernel" in symbol else "decode"
    variant = symbol.split(f"{op}_kernel")[1]
    half = "half" if "alf" in variant else "float"
    if op == "crop":
        return f"crop {'NV12' if 'Nv12' in variant else 'packed'} {half}"
    softmax, sure = (flag == "1" for flag in re.findall(r"Lb([01])", variant))
    return f"decode {half}{' softmax' if softmax else ''}{' spread' if sure else ''}"


def kernels() -> list[Kernel]:
    """Compile, and read what ptxas says."""
    toolkit = find_toolkit()
    if toolkit is None:
        raise SystemExit("nvcc was not found; set CUDA_HOME")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for source in CUDA_SOURCES:
            command = [
                toolkit.nvcc,
                *nvcc_flags(toolkit.architectures),
                "-Xptxas",
                "-v",
                "-c",
                ROOT / "cpp_ext" / source,
            ]
            done = subprocess.run([*command, "-o", f"{folder}/object"], check=True, capture_output=True, text=True)
            said = done.stdout + done.stderr
            for part in re.split(r"(?=Compiling entry function)", said)[1:]:
                symbol, architecture = ENTRY.search(part).groups()  # type: ignore[union-attr]
                registers, shared = USED.search(part).groups()  # type: ignore[union-attr]
                spilled = sum(map(int, SPILLS.search(part).groups()))  # type: ignore[union-attr]
                found.append(Kernel(readable(symbol), int(architecture), int(registers), spilled, int(shared or 0)))
    return found


def main() -> None:
    """One row a kernel, one column an architecture: registers and occupancy; then spills and shared memory."""
    found = kernels()
    architectures = sorted({each.architecture for each in found})
    table = {(each.name, each.architecture): each for each in found}
    lines = [
        "| kernel | " + " | ".join(f"sm_{a}" for a in architectures) + " |",
        "| --- |" + " --- |" * len(architectures),
    ]
    for name in sorted({each.name for each in found}):
        cells = [f"{table[name, a].registers}, {table[name, a].occupancy:.0%}" for a in architectures]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    spilled, shared = (
        sum(each.spilled_bytes for each in found),
        {each.name.split()[0]: each.shared_bytes for each in found},
    )
    lines.append(f"\nSpilled: {spilled} bytes in all. Shared memory a block: {shared}.")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
