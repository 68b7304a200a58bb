"""Prints what the compiler made of the CUDA kernels, for every architecture: registers, spills, shared memory and
occupancy, and what the machine code holds. Exit status 1 where the machine code is not what the source means.

    python cpp_ext/kernel_report.py          # needs nvcc and nvdisasm (pip install nvidia-cuda-nvdisasm); no GPU

For another compiler name its toolkit in CUDA_HOME. Occupancy is computed from the published limits of each
architecture, for the block sizes the launchers use.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from build_native import CUDA_SOURCES, NVCC_FLAGS, Toolkit, find_toolkit, nvcc_flags
from machine_code import Machine, Tools, faults_of, find_tools, kernels_from_ptx, readable

ROOT = Path(__file__).resolve().parent.parent
BLOCK_THREADS = {"crop": 256, "decode": 128, "detections": 512}
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


def kernels(toolkit: Toolkit) -> list[Kernel]:
    """Compile, and read what ptxas says."""
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


def machine_code(toolkit: Toolkit, tools: Tools) -> list[Machine]:
    """Disassemble what ptxas makes of every kernel for every architecture."""

    def of(architecture: int) -> list[Machine]:
        found = []
        for source in CUDA_SOURCES:
            with tempfile.TemporaryDirectory() as folder:
                target = Path(folder) / "kernels.ptx"
                words = [toolkit.nvcc, *NVCC_FLAGS, f"-arch=compute_{architecture}", "-ptx", ROOT / "cpp_ext" / source]
                subprocess.run([*words, "-o", target], check=True, capture_output=True)
                found += kernels_from_ptx(target.read_text(), architecture, tools)
        return found

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [kernel for several in pool.map(of, toolkit.architectures) for kernel in several]


def main() -> int:
    """Registers and occupancy, then the machine code; 1 where it is not what the source means."""
    toolkit = find_toolkit()
    if toolkit is None:
        raise SystemExit("nvcc was not found; set CUDA_HOME")
    tools = find_tools(toolkit.nvcc)
    if tools is None:
        raise SystemExit("nvdisasm was not found; pip install nvidia-cuda-nvdisasm")
    sys.stdout.write(f"nvcc {toolkit.version}\n\n")
    _show_registers(kernels(toolkit))
    read = machine_code(toolkit, tools)
    _show_machine_code(read)
    return 1 if any(map(faults_of, read)) else 0


def _show_registers(found: list[Kernel]) -> None:
    """One row a kernel, one column an architecture; then spills and shared memory."""
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


def _show_machine_code(found: list[Machine]) -> None:
    """One row a kernel, its architectures together where they agree; then what is not meant."""
    rows: dict[tuple[str, ...], list[int]] = {}
    for each in found:
        cells = (each.name, _bits(each.loads), _bits(each.stores), str(each.fused), str(each.own_fused))
        rows.setdefault(cells, []).append(each.architecture)
    lines = [
        "",
        "| kernel | sm | loads, bits | stores, bits | multiply-adds of divisions and roots | other multiply-adds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (name, loads, stores, fused, own), architectures in sorted(rows.items()):
        lines.append(f"| {name} | {' '.join(map(str, architectures))} | {loads} | {stores} | {fused} | {own} |")
    faults = [f"{each.name}, sm_{each.architecture}: {fault}" for each in found for fault in faults_of(each)]
    lines.append("\nNot meant by the source: " + ("\n".join(faults) or "nothing") + ".")
    sys.stdout.write("\n".join(lines) + "\n")


def _bits(widths: frozenset[int]) -> str:
    return " ".join(map(str, sorted(widths)))


if __name__ == "__main__":
    sys.exit(main())
