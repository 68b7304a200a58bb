"""Why TensorRT-RTX will not run a plan here, in words: the bits of its `EngineInvalidityDiagnostics`. `tensorrt` has
none; it says why in its log. The bindings are handed in.

    reasons_from_bits(tensorrt_rtx, 2, served=("8.6", "8.9"))
    # ["it was compiled for other GPUs (here: NVIDIA H200, compute capability 9.0): ..."]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sdk.cuda_devices import cuda_devices, driver_version

__all__ = ["USE_TENSORRT", "reasons_from_bits", "unserved"]

REBUILD = "rebuild it here: `sdk build-engine --rebuild ENGINE --compiler tensorrt-rtx`"
USE_TENSORRT = "use TensorRT for it: pip install 'simcc-edge-sdk[tensorrt]', then give --compiler tensorrt"


def reasons_from_bits(trt: Any, bits: int, served: Sequence[str]) -> list[str]:
    """One sentence a bit that is set: what the plan needs, what this machine has, and the mend."""
    members = getattr(getattr(trt, "EngineInvalidityDiagnostics", None), "__members__", {})
    names = {int(member.value): name for name, member in members.items()}
    found = [1 << place for place in range(int(bits).bit_length()) if int(bits) >> place & 1]
    return [_sentence(names.get(bit, f"bit {bit}"), str(trt.__version__), served) for bit in found]


def unserved(capability: str, version: str, served: Sequence[str]) -> str | None:
    """Why no plan of TensorRT-RTX runs on GPUs of this compute capability; None where one does.

    One does where a plan can be compiled for an equal or older GPU of the same family, the number before the dot.
    """
    wanted = _numbers(capability)
    if any(wanted[0] == known[0] and wanted >= known for known in map(_numbers, served)):
        return None
    return (
        f"tensorrt-rtx {version} serves GPUs of compute capability {', '.join(served)}, and this one has {capability}"
    )


def _numbers(capability: str) -> tuple[int, ...]:
    return tuple(map(int, capability.split(".")))


def _sentence(name: str, version: str, served: Sequence[str]) -> str:
    known: dict[str, Callable[[], str]] = {
        "VERSION_MISMATCH": lambda: f"it is of another version of TensorRT-RTX (here: {version}): {REBUILD}",
        "UNSUPPORTED_CC": lambda: f"it was compiled for other GPUs (here: {_gpus()}): {_gpu_mend(version, served)}",
        "OLD_CUDA_DRIVER": lambda: (
            f"it needs a newer driver (here: one for CUDA {driver_version()}): update the driver"
        ),
        "OLD_CUDA_RUNTIME": lambda: (
            f"it needs a newer CUDA runtime (here: what tensorrt-rtx {version} brings): "
            "pip install --upgrade tensorrt-rtx, or " + REBUILD
        ),
        "INSUFFICIENT_GPU_MEMORY": lambda: (
            f"the GPU would be out of memory (here: {_gpus()}): build it for a smaller batch with --max-batch"
        ),
        "MALFORMED_ENGINE": lambda: f"its bytes are damaged, or no plan: copy the engine again, or {REBUILD}",
        "CUDA_ERROR": lambda: "CUDA does not work here: `sdk doctor` lists what is missing",
    }
    return known[name]() if name in known else f"a reason that this SDK does not know ({name}): {REBUILD}"


def _gpus() -> str:
    found = (f"{gpu.name}, compute capability {gpu.capability}, {gpu.memory_mib} MiB" for gpu in cuda_devices())
    return "; ".join(found) or "no CUDA device"


def _gpu_mend(version: str, served: Sequence[str]) -> str:
    problem = next(filter(None, (unserved(gpu.capability, version, served) for gpu in cuda_devices())), None)
    return f"{problem}; {USE_TENSORRT}" if problem else f"{REBUILD[:-1]} --compute-capability current`"
