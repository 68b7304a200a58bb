"""Reads the machine code of the CUDA kernels: what ptxas made of the PTX, which compilers have got wrong before.

A kernel's code must hold what the source means and nothing else: no conversion of a float to 8 bits (ptxas up to 13.0
makes one of a half's bytes), no local memory, loads and stores of the widths that the source has, and no fused
multiply-add but those in which ptxas carries out a division or a root: without those instructions, there must be none.
Needs ptxas and nvdisasm: a toolkit's, or pip install nvidia-cuda-nvcc nvidia-cuda-nvdisasm. No GPU.

    for kernel in kernels_from_ptx(text, 87, tools):
        kernel.name, kernel.loads, kernel.stores, faults_of(kernel)
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Machine", "Tools", "faults_of", "find_tools", "kernels_from_ptx", "readable"]

SECTION = re.compile(r"^\.text\.(\S+):$", re.MULTILINE)
INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P[0-9T]+\s+)?([A-Z][\w.]*)([^;\n]*);", re.MULTILINE)
WIDTH = re.compile(r"\.(?:[US])?(8|16|64|128)\b")
A_MOVE = re.compile(r"\s*R\d+, -RZ, RZ, ")  # 0 * 0 + a constant: how a constant is written since sm_80
FUSED = re.compile(r"U?[FDH]FMA2?\b|HFMA2|FFMA2")
EXPANDED = re.compile(r"\b(div\.rn|div|rem|rcp\.rn|sqrt\.rn)\.(f32|f64|s32|u32|s64|u64)\b([^;]*);")
# Of a kernel's global loads and stores, in bits: those that must be there, and those that may be. 64 and 32: a crop's
# frame and affine; 8: bytes near the frame's border; 32 and 16: rows and planes that are not aligned.
LOADS = {
    "crop packed": ({8, 32}, {64, 128}),
    "crop NV12": ({8, 32}, {64, 128}),
    "decode float": ({32, 128}, set()),
    "decode half": ({16, 128}, {32}),
    "detections": ({16, 32, 64}, {128}),  # halves, floats, 64-bit labels and frame records
}
STORES = {
    "crop packed float": ({32, 128}, set()),
    "crop packed half": ({16, 64}, set()),
    "crop NV12 float": ({32, 128}, set()),
    "crop NV12 half": ({16, 64}, set()),
    "decode": ({32}, set()),
    "detections": ({32, 64}, {128}),
}


@dataclass(frozen=True)
class Tools:
    """ptxas and nvdisasm."""

    ptxas: Path
    nvdisasm: Path


@dataclass(frozen=True)
class Machine:
    """One kernel's machine code on one architecture. `fused`: multiply-adds; `own_fused`: of no division or root."""

    name: str
    architecture: int
    instructions: Counter[str]
    loads: frozenset[int]
    stores: frozenset[int]
    fused: int
    own_fused: int


def find_tools(nvcc: Path) -> Tools | None:
    """The toolkit's ptxas; its nvdisasm, or the one on PATH or of the package index. None where one is missing."""
    ptxas = shutil.which("ptxas", path=str(nvcc.resolve().parent)) or shutil.which("ptxas")
    packaged = [
        str(bin) for folder in sys.path for bin in sorted(Path(folder or ".").glob("nvidia/cu*/bin"), reverse=True)
    ]
    places = [str(nvcc.resolve().parent), None, *packaged]
    nvdisasm = next(filter(None, (shutil.which("nvdisasm", path=place) for place in places)), None)
    return Tools(Path(ptxas), Path(nvdisasm)) if ptxas and nvdisasm else None


def kernels_from_ptx(ptx: str, architecture: int, tools: Tools) -> list[Machine]:
    """Each kernel of a PTX file as ptxas compiles it for sm_`architecture`."""
    real = _code(ptx, architecture, tools)
    plain = _code(_without_expansions(ptx), architecture, tools)
    return [_machine(symbol, architecture, text, plain[symbol]) for symbol, text in real.items()]


def faults_of(kernel: Machine) -> list[str]:
    """What of a kernel's machine code the source does not mean."""
    kinds = kernel.instructions
    found = [f"{kind} converts to 8 bits" for kind in kinds if _converts_to_bytes(kind)]
    found += [f"{kind}: local memory" for kind in kinds if re.match(r"(LDL|STL)\b", kind)]
    if kernel.own_fused:
        found.append(f"{kernel.own_fused} fused multiply-adds of no division or root")
    for word, widths, table in (("loads", kernel.loads, LOADS), ("stores", kernel.stores, STORES)):
        must, may = next(rule for name, rule in table.items() if kernel.name.startswith(name))
        if not must <= widths <= must | may:
            found.append(f"{word} of {_listed(widths)} bits, not of {_listed(must)}")
    return found


def readable(symbol: str) -> str:
    """'crop NV12 half' and the like, from a mangled kernel name."""
    op = next(name for name in ("crop", "decode", "detections") if f"{name}_kernel" in symbol)
    if op == "detections":
        return op
    variant = symbol.split(f"{op}_kernel")[1]
    half = "half" if "alf" in variant else "float"
    if op == "crop":
        return f"crop {'NV12' if 'Nv12' in variant else 'packed'} {half}"
    switches = zip(("softmax", "spread"), re.findall(r"Lb([01])E", variant), strict=True)
    return " ".join(["decode", half, *(word for word, on in switches if on == "1")])


def _code(ptx: str, architecture: int, tools: Tools) -> dict[str, str]:
    """Kernel symbol -> its disassembly."""
    with tempfile.TemporaryDirectory() as folder:
        source, cubin = Path(folder, "kernels.ptx"), Path(folder, "kernels.cubin")
        source.write_text(re.sub(r"^\.target sm_\w+", f".target sm_{architecture}", ptx, flags=re.MULTILINE))
        words = [tools.ptxas, "-O3", f"-arch=sm_{architecture}", source, "-o", cubin]
        subprocess.run(words, check=True, capture_output=True)
        said = subprocess.run([tools.nvdisasm, "-c", cubin], check=True, capture_output=True, text=True).stdout
    _, *parts = SECTION.split(said)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _machine(symbol: str, architecture: int, text: str, plain: str) -> Machine:
    found = INSTRUCTION.findall(text)
    kinds = Counter(kind for kind, _ in found)
    assert kinds, f"no instruction of {symbol} was read: nvdisasm writes them otherwise"
    loads, stores = (frozenset(_bits(kind) for kind in kinds if kind.startswith(op)) for op in ("LDG", "STG"))
    return Machine(
        readable(symbol), architecture, kinds, loads, stores, _fused(found), _fused(INSTRUCTION.findall(plain))
    )


def _fused(instructions: list[tuple[str, str]]) -> int:
    return sum(bool(FUSED.match(kind)) and not A_MOVE.match(operands) for kind, operands in instructions)


def _bits(kind: str) -> int:
    width = WIDTH.search(kind)
    return int(width[1]) if width else 32


def _converts_to_bytes(kind: str) -> bool:
    """F2I.U8 and its kind, with or without .F16; F2F and F2FP to an 8-bit float."""
    op, *parts = kind.split(".")
    return (op == "F2I" and bool({"U8", "S8"} & set(parts))) or (
        op[:2] == "F2" and any(re.match("E[45]M", p) for p in parts)
    )


def _without_expansions(ptx: str) -> str:
    """The same PTX with every division and root put in by what needs no multiply-add: as many operands, other sums."""

    def plain(match: re.Match[str]) -> str:
        op, kind, operands = match.groups()
        if op.startswith(("rcp", "sqrt")):
            return f"mov.{kind}{operands};"
        return f"{'add.rn' if kind[0] == 'f' else 'add'}.{kind}{operands};"

    return EXPANDED.sub(plain, ptx)


def _listed(widths: frozenset[int] | set[int]) -> str:
    return ", ".join(map(str, sorted(widths))) or "no"
