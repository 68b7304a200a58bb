"""The session on the CPU: ONNX Runtime runs the engine's typed graph. The reference for every other session.

with OrtSession(open_engine(folder), threads=2) as session:
    simcc_x, simcc_y = session.run(crops)
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.cores import allowed_cores, physical_cores, restricted
from sdk.errors import ClosedError, EngineError, InputError, MissingDependencyError
from sdk.in_flight import in_flight
from sdk.manifest import Engine
from sdk.numeric import is_whole
from sdk.onnx_runtime import onnxruntime
from sdk.recipe import Recipe
from sdk.runtime.closing import Closing
from sdk.runtime.session import check_crops, expected_tensors

__all__ = ["OrtSession", "onnxruntime_errors", "onnxruntime_run", "onnxruntime_session"]

log = logging.getLogger(__name__)

Float32Array = NDArray[np.float32]
THREADS_A_CORE = 4  # 256 threads on 2 cores: 13 s to open the bundled network, 2.2 s a crop (2 threads: 0.05 s, 8 ms)


def onnxruntime_session(
    path: os.PathLike[str] | str, threads: int | None = None, *, content: bytes | None = None
) -> Any:
    """An `onnxruntime.InferenceSession` of an ONNX file on the CPU. EngineError where ONNX Runtime refuses the file.

    `content`: the graph itself, where `path` only names it, as of a zip.
    """
    intra = _intra_threads(threads)
    try:
        runtime = onnxruntime()
    except ImportError as error:
        raise MissingDependencyError(
            f"device 'cpu' needs ONNX Runtime, which cannot be imported ({error}); pip install onnxruntime"
        ) from error
    options = runtime.SessionOptions()
    options.intra_op_num_threads = intra
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; they reach the user as exceptions
    # Q/DQ as written: ONNX Runtime's INT8 kernels saturate without VNNI; a reference must not depend on it
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        with in_flight:
            source = os.fspath(path) if content is None else content
            return runtime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except onnxruntime_errors() as error:
        raise EngineError(f"graph '{path}': ONNX Runtime {runtime.__version__} refuses it ({error})") from error


def onnxruntime_run(session: Any, names: list[str] | None, feeds: Mapping[str, Any], path: object) -> list[Any]:
    """What the graph of `path` gives; EngineError in place of ONNX Runtime's own errors."""
    try:
        with in_flight:
            outputs: list[Any] = session.run(names, feeds)
    except onnxruntime_errors() as error:
        shapes = ", ".join(f"'{name}' {list(np.shape(value))}" for name, value in feeds.items())
        raise EngineError(
            f"graph '{path}': ONNX Runtime cannot run it on {shapes} ({error}); build the engine again, or export the "
            "graph again"
        ) from error
    return outputs


def onnxruntime_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises: classes without a root of their own, and what its binding lets through."""
    state = vars(onnxruntime().capi.onnxruntime_pybind11_state)
    found = (value for value in state.values() if isinstance(value, type) and issubclass(value, Exception))
    return (*found, RuntimeError, ValueError, MemoryError)


def _intra_threads(threads: int | None) -> int:
    """What ONNX Runtime is asked for: 0, its own choice, for None; no more than THREADS_A_CORE.

    Its own choice ties threads to cores of the whole machine, in a container also to those that it may not use: there
    it is told how many.
    """
    if threads is None:
        return physical_cores() if restricted() else 0
    from sdk.ops import MAX_THREADS

    if not is_whole(threads, 1, MAX_THREADS):
        raise InputError(
            f"threads must be a whole number from 1 to {MAX_THREADS}, or None for all cores (got {threads!r})"
        )
    most = THREADS_A_CORE * allowed_cores()
    if threads > most:
        log.info("threads: ONNX Runtime takes %d of the %d asked for, %d a core", most, threads, THREADS_A_CORE)
    return min(int(threads), most)


class OrtSession(Closing):
    """An engine on the CPU. Several threads may call `run` at once; a forked child may not."""

    device = "cpu"

    def __init__(self, engine: Engine, *, threads: int | None = None) -> None:
        self.engine = engine
        self._pid = os.getpid()
        self._session: Any = onnxruntime_session(engine.graph_path, threads)
        self._names = list(engine.manifest.recipe.output.names)
        self._check_tensors()
        batch = self._session.get_inputs()[0].shape[0]
        self._fixed_batch = batch if isinstance(batch, int) else None
        self.max_batch = self._fixed_batch or engine.manifest.batch.max

    @property
    def recipe(self) -> Recipe:
        return self.engine.manifest.recipe

    def run(self, crops: Float32Array) -> tuple[Float32Array, ...]:  # N x 3 x h x w
        """(simcc_x N x K x Wx, simcc_y N x K x Hy), or (heatmap N x K x h/4 x w/4,), float32."""
        session = self._opened()  # its own reference: `close` in another thread frees the graph after this call
        crops = check_crops(crops, self.recipe)
        count = len(crops)
        if self._fixed_batch and count < self._fixed_batch:
            filler = np.zeros((self._fixed_batch - count, *crops.shape[1:]), np.float32)
            crops = np.concatenate([crops, filler])
        outputs = onnxruntime_run(session, self._names, {self.recipe.input.name: crops}, self.engine.graph_path)
        return tuple(output[:count] for output in outputs)

    def close(self) -> None:
        """Free the graph. Closing twice is allowed; running afterwards is a ClosedError."""
        self._session = None

    def _opened(self) -> Any:
        session = self._session
        if session is None:
            raise ClosedError(f"session of engine '{self.engine.folder.name}' is closed; open it again")
        if os.getpid() != self._pid:
            raise ClosedError(
                f"session of engine '{self.engine.folder.name}' was opened before a fork; open it in the child process"
            )
        return session

    def _check_tensors(self) -> None:
        found_in = [tensor.name for tensor in self._session.get_inputs()]
        found_out = [tensor.name for tensor in self._session.get_outputs()]
        if found_in != [self.recipe.input.name] or not set(self._names) <= set(found_out):
            raise EngineError(
                f"engine '{self.engine.folder}': the graph has inputs {found_in} and outputs {found_out}, its recipe "
                f"names '{self.recipe.input.name}' and {self._names}; build the engine again"
            )
        found = {tensor.name: tensor for tensor in (*self._session.get_inputs(), *self._session.get_outputs())}
        for name, shape in expected_tensors(self.recipe).items():
            if not _fits(found[name], shape):
                wanted = ["any" if size == -1 else size for size in shape]
                raise EngineError(
                    f"engine '{self.engine.folder}': tensor '{name}' of its graph must be float32 with the shape "
                    f"{wanted} by its recipe (got {found[name].type} {found[name].shape}); build the engine again"
                )


def _fits(tensor: Any, shape: tuple[int, ...]) -> bool:
    """Whether a tensor of the graph has this shape; -1 is any size, and a size that the graph leaves open fits."""
    sizes = tensor.shape or ["?"] * len(shape)
    equal = (not isinstance(have, int) or want in (-1, have) for want, have in zip(shape, sizes, strict=False))
    return tensor.type == "tensor(float)" and len(sizes) == len(shape) and all(equal)
