"""The PTX that nvcc makes of the CUDA kernels, as text, and the emulation of its instructions against the PTX ISA.

`test_ops_emulated_gpu.py` runs that PTX.
"""

import ctypes
import re

import pytest

from tests.support.emulated_gpu import compiler, run_together
from tests.support.ptx import PTX_FLAGS, Module, cpp_from_ptx, opcodes, translated

EXACT = re.compile(r"(ld|st|mov|selp|setp|abs|neg|copysign)\..*|cvt\.(f32\.f16|f64\.f32)")
ROUNDED_ONCE = re.compile(r"(add|sub|mul|div|rcp|sqrt)\.rn\.f(32|64)|cvt\.(rn|rzi)\.[\w.]+")


@pytest.mark.parametrize("architecture", ["oldest", "orin", "newest"])
def test_floats_are_ieees(ptx_files, architecture):
    """Nothing flushes subnormals (.ftz), approximates (.approx) or fuses (fma, or an add without .rn)."""
    kinds = {kind for file in ptx_files[architecture] for kind in opcodes(file.read_text())}
    rounding = {kind for kind in kinds if re.search(r"\.f\d", kind) and not EXACT.fullmatch(kind)}
    assert {"add.rn.f32", "mul.rn.f32", "div.rn.f64"} < rounding
    assert not {kind for kind in rounding if not ROUNDED_ONCE.fullmatch(kind)}


# Type of %d, instruction, bits of %d. Sections of the PTX ISA are in emulated_cuda/ptx.h.
INSTRUCTIONS = [
    ("b32", "add.s32 %d, 2147483647, 1", 0x80000000),
    ("b64", "sub.s64 %d, 1, 2", -1),
    ("b32", "mul.lo.s32 %d, 65537, 65536", 65536),
    ("b64", "mul.wide.s32 %d, -2, 3", -6),
    ("b64", "mul.wide.u32 %d, -2, 3", 0x2FFFFFFFA),
    ("b64", "mad.lo.s64 %d, 3, 4, -13", -1),
    ("b32", "div.s32 %d, -7, 2", -3),
    ("b32", "rem.s32 %d, -7, 2", -1),
    ("b32", "max.s32 %d, -1, 1", 1),
    ("b32", "min.s32 %d, -1, 1", -1),
    ("b32", "neg.s32 %d, -2147483648", 0x80000000),
    ("b32", "not.b32 %d, 1", -2),
    ("pred", "not.pred %d, 1", 0),
    ("pred", "xor.pred %d, 1, 1", 0),
    ("b32", "shl.b32 %d, 1, 31", 0x80000000),
    ("b32", "shl.b32 %d, 1, 32", 0),
    ("b64", "shl.b64 %d, 1, 32", 1 << 32),
    ("b32", "shr.u32 %d, -1, 32", 0),
    ("b32", "shr.s32 %d, -8, 1", -4),
    ("b32", "shr.s32 %d, -8, 40", -1),
    ("b32", "bfe.u32 %d, 0x12345678, 8, 12", 0x456),
    ("b32", "bfe.u32 %d, -1, 28, 12", 0xF),
    ("b32", "bfe.u32 %d, -1, 32, 8", 0),
    ("b32", "bfe.u32 %d, -1, 0, 32", 0xFFFFFFFF),
    ("b64", "bfe.u64 %d, -1, 60, 8", 0xF),
    ("b32", "shf.r.wrap.b32 %d, 4, 3, 33", 0x80000002),
    ("b64", "mov.b64 %d, {1, 2}", 0x200000001),
    ("b32", "selp.b32 %d, 1, 2, 0", 2),
    ("b32", "add.rn.f32 %d, 0f3F800000, 0f33800000", 0x3F800000),
    ("b32", "mul.rn.f32 %d, 0f00800000, 0f3F000000", 0x00400000),
    ("b32", "div.rn.f32 %d, 0f3F800000, 0f00000000", 0x7F800000),
    ("b32", "rcp.rn.f32 %d, 0f40400000", 0x3EAAAAAB),
    ("b32", "sqrt.rn.f32 %d, 0f40000000", 0x3FB504F3),
    ("b64", "sqrt.rn.f64 %d, 0d4000000000000000", 0x3FF6A09E667F3BCD),
    ("b32", "abs.f32 %d, 0fFF800000", 0x7F800000),
    ("b64", "copysign.f64 %d, 0dBFF0000000000000, 0d4008000000000000", 0xC008000000000000),
    ("pred", "setp.ne.s32 %d, 1, 2", 1),
    ("pred", "setp.gt.s32 %d, -1, 1", 0),
    ("pred", "setp.gt.u32 %d, -1, 1", 1),
    ("pred", "setp.ne.f32 %d, 0f7FC00000, 0f00000000", 0),
    ("pred", "setp.neu.f32 %d, 0f7FC00000, 0f00000000", 1),
    ("pred", "setp.gt.f32 %d, 0f7FC00000, 0f00000000", 0),
    ("pred", "setp.gtu.f32 %d, 0f7FC00000, 0f00000000", 1),
    ("pred", "setp.num.f64 %d, 0d3FF0000000000000, 0d7FF8000000000000", 0),
    ("pred", "setp.nan.f32 %d, 0f3F800000, 0f7FC00000", 1),
    ("pred", "setp.eq.f32 %d, 0f80000000, 0f00000000", 1),
    ("b64", "cvt.s64.s32 %d, -1", -1),
    ("b64", "cvt.u64.u32 %d, -1", 0xFFFFFFFF),
    ("b16", "cvt.u16.u32 %d, 65537", 1),
    ("b32", "cvt.s32.s8 %d, 255", -1),
    ("b32", "cvt.rn.f32.s32 %d, 16777217", 0x4B800000),
    ("b32", "cvt.rn.f32.f64 %d, 0d3FF0000010000001", 0x3F800001),
    ("b32", "cvt.rzi.s32.f32 %d, 0fBFC00000", -1),
    ("b32", "cvt.rzi.s32.f32 %d, 0f4F000000", 0x7FFFFFFF),
    ("b32", "cvt.rzi.s32.f32 %d, 0fCF800000", 0x80000000),
    ("b32", "cvt.rzi.s32.f32 %d, 0f7FC00000", 0),
    ("b16", "cvt.rn.f16.f32 %d, 0f477FF000", 0x7C00),
    ("b16", "cvt.rn.f16.f32 %d, 0f33000000", 0),
    ("b32", "cvt.rn.f16x2.f32 %d, 0f3F800000, 0f40000000", 0x3C004000),
    ("b32", "cvt.f32.f16 %d, 1", 0x33800000),
    ("b32", "cvt.f32.f16 %d, 0xFC00", 0xFF800000),
]
CASE = """extern "C" uint64_t case_{}() {{
    {}
    return $d;
}}
"""


@pytest.fixture(scope="module")
def cases(emulated, tmp_path_factory):
    """A library of a function for each of INSTRUCTIONS."""
    source = tmp_path_factory.mktemp("instructions") / "cases.cpp"
    bodies = (translated(f".reg .{kind} %d; {text};", Module()) for kind, text, _ in INSTRUCTIONS)
    source.write_text('#include "ptx.h"\n' + "".join(map(CASE.format, range(len(INSTRUCTIONS)), bodies)))
    library = source.with_suffix(".so")
    run_together([[compiler(), *PTX_FLAGS, source, emulated.path, "-o", library]])
    return ctypes.CDLL(str(library))


@pytest.mark.parametrize("number", range(len(INSTRUCTIONS)), ids=[text for _, text, _ in INSTRUCTIONS])
def test_instructions_are_the_isas(cases, number):
    kind, _, expected = INSTRUCTIONS[number]
    function = cases[f"case_{number}"]
    function.restype = ctypes.c_uint64
    assert function() == expected % (1 << 64 if kind == "b64" else 1 << 32 if kind == "b32" else 1 << 16)


ENTRY = """.version 9.0
.entry kernel(
	.param .u64 kernel_param_0
)
.maxntid 32
{
	.reg .f32 %f<2>;
	STATEMENT
	ret;
}
"""


UNKNOWN = [
    "fma.rn.f32 %f1, %f0, %f0, %f0;",
    "add.rn.ftz.f32 %f1, %f0, %f0;",
    "add.f32 %f1, %f0, %f0;",
    "mov.u32 %f1, %clock;",
]


@pytest.mark.parametrize("text", UNKNOWN)
def test_what_is_not_emulated_is_named(text, emulated, tmp_path):
    source = tmp_path / "kernel.cpp"
    ptx = source.with_suffix(".ptx")
    ptx.write_text(ENTRY.replace("STATEMENT", text))
    source.write_text(cpp_from_ptx(ptx.read_text(), ptx))
    with pytest.raises(AssertionError, match=rf"kernel.ptx:8:.*\n.*{re.escape(text)}"):
        run_together([[compiler(), *PTX_FLAGS, source, emulated.path, "-o", source.with_suffix(".so")]])


def test_a_statement_that_no_rule_reads_is_named():
    with pytest.raises(AssertionError, match=r"no rule reads this PTX: \.local \.b8 depot\[8\];"):
        cpp_from_ptx(ENTRY.replace("STATEMENT", ".local .b8 depot[8];"), "kernel.ptx")
