"""The session on a GPU: crops in, logits out, in numpy. For verification and for networks run apart from the ops.

The way from a frame to joints without leaving the device is `sdk.runtime.cuda.gpu_pipeline`.

    with TensorRTSession(open_engine(folder), index=0) as session:
        simcc_x, simcc_y = session.run(crops)
"""

from __future__ import annotations

import weakref
from math import prod

import numpy as np
from numpy.typing import NDArray

from sdk import trt
from sdk.errors import SdkError
from sdk.in_flight import in_flight
from sdk.manifest import Engine
from sdk.recipe import Recipe
from sdk.runtime.closing import Closing
from sdk.runtime.cuda.closing import close_lanes
from sdk.runtime.cuda.context import DeviceContext, device_context
from sdk.runtime.cuda.kernels import Kernels, NativeKernels
from sdk.runtime.cuda.lanes import Lane, LanePool, prepared
from sdk.runtime.cuda.loaded_plan import LoadedPlan, loaded_plan
from sdk.runtime.cuda.memory import PinnedArray
from sdk.runtime.cuda.planner import bucket_of, buckets, buffer_layout
from sdk.runtime.cuda.watchdog import TIME_OUT_S
from sdk.runtime.session import check_crops

__all__ = ["TensorRTSession"]

Float32Array = NDArray[np.float32]
LANES = 3


class TensorLane(Lane):
    """Buffers for one batch of crops and its outputs. The device's context must be entered for every method."""

    def prepare(self, batches: tuple[int, ...]) -> None:
        """Allocate the host's side of every tensor."""
        self._batches = batches
        self._host: dict[str, PinnedArray] = {
            tensor.name: self.pinned((batches[-1], *tensor.shape[1:]), tensor.dtype, f"hold tensor '{tensor.name}'")
            for tensor in self.loaded.plan.tensors
        }

    def shapes(self, names: tuple[str, ...]) -> list[tuple[int, ...]]:
        """The shapes of these tensors at the largest batch."""
        return [self._host[name].array.shape for name in names]

    def run(self, crops: Float32Array, names: tuple[str, ...]) -> tuple[Float32Array, ...]:  # N x 3 x h x w
        """The outputs called `names`, for at most the largest batch. Rows that fill up a batch are not read."""
        count, driver = len(crops), self.device.driver
        batch = bucket_of(count, self._batches)
        context = self.context_for(batch)
        for name in self._host:
            context.set_address(name, self.address(name))
        (source,) = (tensor for tensor in self.loaded.plan.tensors if tensor.is_input)
        self._host[source.name].array[:count] = crops
        driver.memcpy_htod_async(self.address(source.name), self._host[source.name].array[:batch], self.stream)
        context.enqueue(self.stream_handle)
        for name in names:
            driver.memcpy_dtoh_async(self._host[name].array[:batch], self.address(name), self.stream)
        self.settle("run a batch")
        return tuple(self._host[name].array[:count].astype(np.float32) for name in names)


class TensorRTSession(Closing):
    """An engine's plan on one CUDA device. Several threads may call `run` at once."""

    def __init__(
        self, engine: Engine, *, index: int = 0, time_out_s: float = TIME_OUT_S, kernels: Kernels | None = None
    ) -> None:
        self.engine = engine
        self.device = f"cuda:{index}"
        self.max_batch = engine.manifest.batch.max
        self._names = engine.manifest.recipe.output.names
        device = self._device = device_context(index)
        used = NativeKernels() if kernels is None else kernels
        with device.entered(f"open engine '{engine.folder.name}'"):
            loaded = loaded_plan(engine, device)
            batches = buckets(engine.manifest.batch.min, self.max_batch)
            self._pool = LanePool(lambda: _tensor_lane(device, loaded, used, batches, time_out_s), LANES, time_out_s)
            self._closer = weakref.finalize(self, close_lanes, device, [loaded], self._pool)
            try:
                with self._pool.lent():
                    pass  # what does not fit is said at opening
            except SdkError:
                self._closer()
                raise

    @property
    def recipe(self) -> Recipe:
        return self.engine.manifest.recipe

    def run(self, crops: Float32Array) -> tuple[Float32Array, ...]:  # N x 3 x h x w
        """(simcc_x N x K x Wx, simcc_y N x K x Hy), or (heatmap N x K x h' x w',), float32."""
        checked = check_crops(crops, self.recipe)
        with in_flight, self._device.entered("run a batch"), self._pool.lent() as lane:
            if len(checked) == 0:
                return tuple(np.zeros((0, *shape[1:]), np.float32) for shape in lane.shapes(self._names))
            pieces = [
                lane.run(checked[first : first + self.max_batch], self._names)
                for first in range(0, len(checked), self.max_batch)
            ]
        return pieces[0] if len(pieces) == 1 else tuple(np.concatenate(parts) for parts in zip(*pieces, strict=True))

    def close(self) -> None:
        """Wait for the calls under way, then free everything. Twice is allowed; a later run is a ClosedError."""
        self._closer()


def _tensor_lane(
    device: DeviceContext, loaded: LoadedPlan, kernels: Kernels, batches: tuple[int, ...], time_out_s: float
) -> TensorLane:
    sizes = {t.name: _tensor_bytes(t, batches[-1]) for t in loaded.plan.tensors}
    layout = buffer_layout({**sizes, "activations": loaded.plan.activation_bytes})
    lane = TensorLane(device, loaded, kernels, layout, time_out_s)
    return prepared(lane, lambda lane: lane.prepare(batches))


def _tensor_bytes(tensor: trt.Tensor, batch: int) -> int:
    return batch * prod(tensor.shape[1:]) * np.dtype(tensor.dtype).itemsize
