"""A stand-in for TensorRT's plan (stand_in.cu), for GPUs that no installed TensorRT makes plans for, H100 among them.

engine = stand_in_engine(folder, recipe, "fp16")     # an engine folder with a plan that only this module reads
use_stand_ins(library_of(folder))                    # from here on sdk.trt loads such plans
x, y = StandInSession(engine).run(crops)             # what it computes, by numpy, bit for bit
detector = stand_in_detector(folder)                 # the same of a person detector
boxes, scores = found_by_stand_in(detector, frame)
"""

import ctypes
import json
import shutil
import subprocess
from functools import cache
from pathlib import Path

import numpy as np

from sdk import ops, trt
from sdk.detection import DetectionForm, Part, letterbox
from sdk.detector_recipe import DetectorInput, DetectorRecipe
from sdk.errors import DeviceError
from sdk.manifest import CompilerNote
from sdk.people.detector_forms import blob_of
from sdk.recipe import recipe_from_table
from sdk.runtime import device
from sdk.runtime.cuda import loaded_plan
from tests.support.engines import given_plan, wrapped_engine
from tests.support.small_detector import written_detector

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).with_name("stand_in.cu")
MARK = b"stand-in "
VERSION = "stand-in"
MAX_BATCH = 16
STRIDE = 32  # of stand_in.cu
DETECTOR = DetectorRecipe(
    name="stand-in-320",
    description="stand-in for a detector",
    source="tests",
    licence="Apache-2.0",
    input=DetectorInput(320, 320, (0, 0, 0), (255, 255, 255), "rgb"),
    outputs=("rows",),
    form=DetectionForm("xyxy", Part(0), Part(0, 4)),
    iou=0.4,
    score_threshold=0.6,
)


def stand_in_engine(folder, recipe, precision, *, capability="8.7", max_batch=MAX_BATCH):
    """An engine folder whose graph and plan are marks; `fp16` has crops and logits in float16."""
    graph = folder.with_suffix(".mark")
    graph.write_bytes(MARK)
    wrapped_engine(graph, folder, recipe, max_batch=max_batch, precision=precision)
    table = {"recipe": recipe.to_table(), "dtype": {"fp32": "float32", "fp16": "float16"}[precision]}
    note = CompilerNote("tensorrt", VERSION, capability, "tensorrt.plan")
    return given_plan(folder, note, MARK + json.dumps(table).encode())


def stand_in_detector(folder, *, capability="8.7"):
    """An engine folder of DETECTOR whose graph and plan are marks."""
    graph = folder.with_suffix(".mark")
    graph.write_bytes(MARK)
    note = CompilerNote("tensorrt", VERSION, capability, "tensorrt.plan")
    return written_detector(folder, graph, DETECTOR, note, MARK + json.dumps({"dtype": "float32"}).encode())


def found_by_stand_in(engine, frame):
    """Boxes and scores, by numpy and the CPU's ops."""
    source, recipe = engine.manifest.recipe.input, engine.manifest.recipe
    blob = blob_of(frame, source)
    height, width = source.size_hw
    y, x = np.mgrid[STRIDE // 2 : height : STRIDE, STRIDE // 2 : width : STRIDE].astype(np.float32)
    score, wide, high = blob[0, :, STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]
    half_width, half_height = (1 + wide) * np.float32(STRIDE // 2), (1 + high) * np.float32(STRIDE)
    rows = np.stack([x - half_width, y - half_height, x + half_width, y + half_height, score], axis=-1)
    to_frame = letterbox(frame.shape[:2], source.size_hw, source.place).to_frame
    return ops.detections(
        [rows.reshape(1, -1, 5)], recipe.form, to_frame=to_frame, size_hw=source.size_hw, frame_hw=frame.shape[:2],
        score_threshold=recipe.score_threshold, iou=recipe.iou,
    )  # fmt: skip


def is_stand_in(engine):
    return engine.manifest.compiler is not None and engine.manifest.compiler.version == VERSION


@cache
def library_of(folder):
    """stand_in.cu compiled by nvcc for the GPU that is here, into `folder`, or found there."""
    target = folder / "stand_in.so"
    if target.is_file():
        return ctypes.CDLL(str(target))
    nvcc = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    if nvcc is None:
        raise DeviceError("the stand-in for a plan needs nvcc: install a CUDA toolkit, or a TensorRT for this GPU")
    flags = ["-std=c++17", "-O2", "-fmad=false", "-arch=native", "-shared", "-Xcompiler", "-fPIC"]
    subprocess.run([nvcc, *flags, f"-I{ROOT / 'cpp_ext'}", SOURCE, "-o", target], check=True)
    return ctypes.CDLL(str(target))


@cache
def use_stand_ins(library):
    """Let `sdk.trt` load stand-ins besides TensorRT's plans, for the rest of the process.

    Which TensorRT is installed stays as it is: other engines may yet be made with it.
    """
    load, problem = trt.load_plan, device.plan_problem

    def load_plan(compiler, data, *, dla_core=None):
        if not data.startswith(MARK):
            return load(compiler, data)
        table = json.loads(data[len(MARK) :])
        return (StandIn if "recipe" in table else DetectorStandIn)(library, table)

    def plan_problem(engine, index=0):
        return None if is_stand_in(engine) else problem(engine, index)

    trt.load_plan = load_plan
    device.plan_problem = loaded_plan.plan_problem = plan_problem


class StandIn:
    """What `sdk.trt.Plan` is to the run time."""

    activation_bytes, aux_streams = 256, 0

    def __init__(self, library, table):
        self.library, self.dtype = library, table["dtype"]
        self.recipe = recipe = recipe_from_table(table["recipe"], "stand-in")
        output, (x_bins, y_bins) = recipe.output, recipe.bins_xy
        shapes = {
            recipe.input.name: (-1, 3, *recipe.input.size_hw),
            output.x_name: (-1, recipe.joints, x_bins),
            output.y_name: (-1, recipe.joints, y_bins),
        }
        self.tensors = tuple(
            trt.Tensor(name, name == recipe.input.name, self.dtype, shape) for name, shape in shapes.items()
        )

    def create_context(self, *, own_graph=False):
        return StandInContext(self)

    def kernels(self):
        return None


class StandInContext:
    """What `sdk.trt.Context` is to the run time."""

    def __init__(self, plan):
        self.plan, self.addresses, self.batch = plan, {}, 0

    def set_memory(self, pointer, size_bytes):
        assert pointer % 256 == 0 and size_bytes >= self.plan.activation_bytes

    def set_shape(self, name, shape):
        self.batch = shape[0]

    def set_address(self, name, pointer):
        self.addresses[name] = pointer

    def capturable(self, stream):
        return True

    def enqueue(self, stream):
        recipe = self.plan.recipe
        names = recipe.output.x_name, recipe.output.y_name, recipe.input.name
        addresses = [ctypes.c_void_p(self.addresses[name]) for name in names]
        sizes = (self.batch, recipe.joints, *recipe.input.size_hw, *recipe.bins_xy, self.plan.dtype == "float16")
        code = self.plan.library.stand_in_enqueue(*addresses, *map(int, sizes), ctypes.c_void_p(stream))
        if code:
            raise DeviceError(f"the stand-in for a plan could not be launched: CUDA error {code}")


class DetectorStandIn(StandIn):
    """The same of a detector."""

    def __init__(self, library, table):
        self.library, self.dtype = library, table["dtype"]
        height, width = DETECTOR.input.size_hw
        self.tensors = (
            trt.Tensor(DETECTOR.input.name, True, self.dtype, (1, 3, height, width)),
            trt.Tensor(DETECTOR.outputs[0], False, self.dtype, (1, height // STRIDE * (width // STRIDE), 5)),
        )

    def create_context(self, *, own_graph=False):
        return DetectorStandInContext(self)


class DetectorStandInContext(StandInContext):
    """The same of a detector."""

    def enqueue(self, stream):
        rows, crop = (ctypes.c_void_p(self.addresses[name]) for name in (DETECTOR.outputs[0], DETECTOR.input.name))
        sizes = (*DETECTOR.input.size_hw, self.plan.dtype == "float16")
        code = self.plan.library.stand_in_detect(rows, crop, *map(int, sizes), ctypes.c_void_p(stream))
        if code:
            raise DeviceError(f"the stand-in for a plan could not be launched: CUDA error {code}")


class StandInSession:
    """The same sums by numpy. float32 crops in, the logits' own type out."""

    def __init__(self, engine):
        self.recipe = engine.manifest.recipe
        self.dtype = np.dtype(np.float16 if engine.manifest.precision == "fp16" else np.float32)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def run(self, crops):
        exact = crops.astype(self.dtype).astype(np.float32)
        x_bins, y_bins = self.recipe.bins_xy
        return self._logits(exact, x_bins), self._logits(exact.swapaxes(2, 3), y_bins)

    def _logits(self, crops, bins):
        """N x K x bins along the crops' last axis."""
        joints, (count, _, length, side) = self.recipe.joints, crops.shape
        places = np.arange(bins) * side // bins
        total = np.zeros((count, joints, bins), np.float32)
        for channel in range(3):
            for i in range(length):
                weights = ((31 * np.arange(joints) + 17 * channel + 7 * i) % 64 - 32).astype(np.float32) / np.float32(
                    32
                )
                total += weights[None, :, None] * crops[:, None, channel, i, places]
        return total.astype(self.dtype)
