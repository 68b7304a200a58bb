"""Engines compiled on the GPU that runs the tests, and frames for them. A graph that is there needs no onnx; where no
TensorRT makes plans for the GPU, a stand-in for a plan needs nvcc.

engine = compiled_engine(folder, "fp32")
"""

import warnings
from dataclasses import replace

import numpy as np
import pytest

from sdk import trt
from sdk.errors import SdkError
from sdk.manifest import CompilerNote, open_engine
from sdk.resources import bundled_engines
from sdk.runtime.device import compute_capability
from tests.support.engines import BODY14, given_plan, pooled_simcc_graph, wrapped_engine
from tests.support.shared import SHARED
from tests.support.small_detector import GRID, found_on_cpu, grid_graph, written_detector
from tests.support.stand_in import (
    StandInSession,
    found_by_stand_in,
    is_stand_in,
    library_of,
    stand_in_detector,
    stand_in_engine,
    use_stand_ins,
)

MAX_BATCH = 16


def graph_and_recipe(folder):
    """A trained graph where there is one, else a seeded one of the same shapes."""
    for path in bundled_engines().values():
        engine = open_engine(path)
        if engine.manifest.precision == "fp32":
            return engine.graph_path, engine.manifest.recipe
    trained = SHARED / "models" / "body14-lspet-128x128.onnx"
    if trained.is_file():
        return trained, BODY14
    pytest.importorskip("onnx", reason="there is no graph to compile, and onnx, which would make one, is not installed")
    return pooled_simcc_graph(folder / "seeded.onnx", BODY14), BODY14


def typed_graph(graph, precision):
    if precision == "fp32":
        return graph
    onnx = pytest.importorskip("onnx", reason="typing a graph as FP16 needs onnx")
    from sdk.toolchain.precision import fp16_graph_from_graph

    return fp16_graph_from_graph(onnx.load_from_string(graph)).SerializeToString()


def compilers():
    """The flavours to try, TensorRT first: TensorRT-RTX is not for data-centre GPUs."""
    return [name for name in ("tensorrt", "tensorrt-rtx") if trt.flavour(name).version]


def compiled_engine(folder, precision, *, stand_in=True):
    """An engine of this precision with a plan for this GPU. Where no TensorRT can make one, a stand-in, or a skip."""
    folder.mkdir(parents=True, exist_ok=True)
    source, recipe = graph_and_recipe(folder)
    path = folder / "typed.onnx"
    path.write_bytes(typed_graph(source.read_bytes(), precision))
    reasons = []
    for compiler in compilers():
        try:
            return _with_plan(folder / f"{precision}.{compiler}", path, recipe, precision, compiler)
        except SdkError as error:
            reasons.append(f"{compiler}: {error}")
    told = "no TensorRT makes a plan for this GPU: " + ("; ".join(reasons) or "none is installed")
    if not stand_in:
        pytest.skip(told)
    warnings.warn(f"{told}; a stand-in takes the plan's place", stacklevel=2)
    use_stand_ins(library_of(folder))
    return stand_in_engine(folder / precision, recipe, precision, capability=compute_capability(), max_batch=MAX_BATCH)


def compiled_detector(folder, engine):
    """A small detector with a plan by what compiled `engine`."""
    if is_stand_in(engine):
        return stand_in_detector(folder, capability=compute_capability())
    pytest.importorskip("onnx", reason="the small detector's graph is made by onnx")
    compiler, graph = engine.manifest.compiler, grid_graph(folder.with_suffix(".onnx"))
    shape = (1, 3, *GRID.input.size_hw)
    plan = _plan_of(compiler.name, graph, {GRID.input.name: (shape, shape, shape)})
    return written_detector(folder, graph, GRID, replace(compiler, plan=f"{compiler.name}.plan"), plan)


def found_on_host(detector, frame):
    """Boxes and scores by the CPU's ops around the same network."""
    return (found_by_stand_in if is_stand_in(detector) else found_on_cpu)(detector, frame)


def cpu_session(engine):
    """The CPU's session of the same network: ONNX Runtime, or numpy for a stand-in."""
    if is_stand_in(engine):
        return StandInSession(engine)
    pytest.importorskip("onnxruntime")
    from sdk.runtime.ort_session import OrtSession

    return OrtSession(engine)


def _with_plan(folder, graph, recipe, precision, compiler):
    shape = (3, *recipe.input.size_hw)
    shapes = {recipe.input.name: ((1, *shape), (MAX_BATCH // 4, *shape), (MAX_BATCH, *shape))}
    plan = _plan_of(compiler, graph, shapes)
    wrapped_engine(graph, folder, recipe, max_batch=MAX_BATCH, precision=precision)
    note = CompilerNote(compiler, trt.flavour(compiler).version, compute_capability(), f"{compiler}.plan")
    return given_plan(folder, note, plan)


def _plan_of(compiler, graph, shapes):
    from sdk.runtime.cuda.context import device_context

    rtx = compiler == "tensorrt-rtx"
    settings = trt.BuildSettings(shapes, compute_capabilities=("current",) if rtx else ())
    with device_context(0).entered("compile"):
        plan = trt.build_plan(compiler, graph.read_bytes(), settings).plan
        trt.load_plan(compiler, plan)  # a plan this GPU refuses is no plan
    return plan


def street(height=1080, width=1920, seed=0):
    """A frame with structure at every scale: blurred seeded noise, light and shadow, nothing flat."""
    rng = np.random.default_rng(seed)
    frame = np.zeros((height, width, 3), np.float32)
    for step, weight in ((64, 90), (16, 50), (4, 30)):
        coarse = rng.uniform(-1, 1, (height // step + 2, width // step + 2, 3)).astype(np.float32)
        frame += weight * np.repeat(np.repeat(coarse, step, 0), step, 1)[:height, :width]
    return np.clip(128 + frame + rng.normal(0, 3, frame.shape), 0, 255).astype(np.uint8)


def persons(count, frame_hw=(1080, 1920), seed=0):
    """`count` boxes of likely sizes, some over the frame's edge."""
    rng = np.random.default_rng(seed)
    height = rng.uniform(60, 500, count)
    width = height * rng.uniform(0.3, 0.6, count)
    x, y = rng.uniform(-20, frame_hw[1] - 40, count), rng.uniform(-20, frame_hw[0] - 40, count)
    return np.stack([x, y, x + width, y + height], axis=1).astype(np.float32)


class PycudaFrame:
    """A frame in device memory by PyCUDA alone, with `__cuda_array_interface__`."""

    def __init__(self, frame):
        from sdk.runtime.cuda.context import device_context
        from sdk.runtime.cuda.memory import DeviceMemory

        self.device = device_context(0)
        with self.device.entered("upload a test frame"):
            self.memory = DeviceMemory(self.device, frame.nbytes, "hold a test frame")
            self.device.driver.memcpy_htod(self.memory.pointer, np.ascontiguousarray(frame))
        self.__cuda_array_interface__ = {
            "shape": frame.shape,
            "typestr": "|u1",
            "data": (self.memory.pointer, True),
            "version": 3,
        }

    def free(self):
        with self.device.entered("free a test frame"):
            self.memory.free()


class OnGpu:
    """Device memory of an array's size, with the interface the ops take. Freed when dropped."""

    def __init__(self, array, *, fill=True, offset=0):
        from pycuda import driver

        self._driver, self._array = driver, np.ascontiguousarray(array)
        self.memory = driver.mem_alloc(max(self._array.nbytes, 1) + offset)
        self.address = int(self.memory) + offset
        self.__cuda_array_interface__ = {
            "shape": self._array.shape,
            "typestr": self._array.dtype.str,
            "data": (self.address, False),
            "strides": None,
            "version": 3,
        }
        if fill and self._array.nbytes:
            driver.memcpy_htod(self.address, self._array)

    def numpy(self):
        result = np.empty_like(self._array)
        if result.nbytes:
            self._driver.memcpy_dtoh(result, self.address)
        return result
