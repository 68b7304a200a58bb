"""The machine code that ptxas makes of the kernels holds what the source means; the reader finds what it should."""

from collections import Counter

import pytest

from tests.support import ptx

pytest.importorskip("nanobind")

from cpp_ext import machine_code
from cpp_ext.machine_code import Machine, faults_of, kernels_from_ptx

LOST_BYTE, EIGHT_BITS = "F2I.U8.F16.TRUNC.NTZ", "F2FP.SATFINITE.E4M3.F32.PACK_AB"
KERNELS = {
    *(f"crop {source} {kind}" for source in ("packed", "NV12") for kind in ("float", "half")),
    *(f"decode {kind}{more}" for kind in ("float", "half") for more in ("", " softmax", " spread", " softmax spread")),
    "detections",
}


@pytest.fixture(scope="module")
def tools():
    toolkit = ptx.toolkit()
    if toolkit is None:
        pytest.skip("needs nvcc, on PATH or in CUDA_HOME")
    found = machine_code.find_tools(toolkit.nvcc)
    if found is None:
        pytest.skip("needs nvdisasm: pip install nvidia-cuda-nvdisasm")
    return found


@pytest.mark.parametrize("name", ["oldest", "orin", "newest"])
def test_the_kernels_machine_code_is_what_the_source_means(ptx_files, tools, name):
    files = ptx_files[name]
    architecture = int(files[0].suffixes[0].strip("."))
    found = [kernel for file in files for kernel in kernels_from_ptx(file.read_text(), architecture, tools)]
    assert {kernel.name for kernel in found} == KERNELS
    assert {kernel.name: faults_of(kernel) for kernel in found if faults_of(kernel)} == {}


MEANT = Machine("decode half", 87, Counter({"LDG.E.128.CONSTANT": 1}), frozenset({16, 32, 128}), frozenset({32}), 83, 0)
NOT_MEANT = {
    "a half's low byte as a number": ({"instructions": Counter([LOST_BYTE])}, f"{LOST_BYTE} converts to 8 bits"),
    "an 8-bit float": ({"instructions": Counter([EIGHT_BITS])}, f"{EIGHT_BITS} converts to 8 bits"),
    "a spill": ({"instructions": Counter({"STL.64": 2})}, "STL.64: local memory"),
    "a multiply-add": ({"own_fused": 3}, "3 fused multiply-adds of no division or root"),
    "stores of bytes": ({"stores": frozenset({8, 32})}, "stores of 8, 32 bits, not of 32"),
    "loads of single halves": ({"loads": frozenset({16})}, "loads of 16 bits, not of 16, 128"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "told"), NOT_MEANT.values(), ids=NOT_MEANT)
def test_what_the_source_does_not_mean_is_told(change, told):
    assert faults_of(MEANT) == []
    (fault,) = faults_of(Machine(**{**vars(MEANT), **change}))
    assert told in fault


def test_bytes_and_halves_that_become_floats_are_meant():
    kinds = Counter({"I2F.U8": 1, "F2F.F16.F32": 1, "F2FP.F16.F32.PACK_AB": 1, "F2I.TRUNC.NTZ": 1})
    assert faults_of(Machine(**{**vars(MEANT), "instructions": kinds})) == []


PLAIN = """.version 8.0
.target sm_75
.address_size 64
.visible .entry decode_kernelIfLb0ELb0EE(.param .u64 to) {
    .reg .f32 %f<4>; .reg .b64 %rd<3>;
    ld.param.u64 %rd1, [to];
    cvta.to.global.u64 %rd2, %rd1;
    ld.global.f32 %f1, [%rd2];
    ld.global.f32 %f2, [%rd2+4];
    SUM
    st.global.f32 [%rd2], %f3;
    ret;
}
"""


@pytest.mark.parametrize(
    ("text", "fused", "own_fused"),
    [
        ("mul.rn.f32 %f3, %f1, %f2; add.rn.f32 %f3, %f3, %f2;", False, False),
        ("div.rn.f32 %f3, %f1, %f2;", True, False),
        ("sqrt.rn.f32 %f3, %f1;", True, False),
        ("fma.rn.f32 %f3, %f1, %f2, %f2;", True, True),
    ],
    ids=["rounded twice", "a division", "a root", "fused"],
)
def test_multiply_adds_are_told_from_those_of_divisions_and_roots(tools, text, fused, own_fused):
    (kernel,) = kernels_from_ptx(PLAIN.replace("SUM", text), 75, tools)
    assert (kernel.name, kernel.stores) == ("decode float", {32})
    assert (kernel.fused > 0, kernel.own_fused > 0) == (fused, own_fused)
