"""A plan on a device, loaded once a process however many estimators and threads use it, and its kernel cache.

TensorRT-RTX compiles kernels when a context is made. What it compiled is kept in a file beside the engine (or in the
cache folder where the engine's is read-only), so that the next process starts fast.

    with device.entered("load the plan"):
        plan = loaded_plan(engine, device)              # give it back with plan.release()
        context = plan.create_context()
"""

from __future__ import annotations

import hashlib
import logging
import threading
from pathlib import Path

from sdk import trt
from sdk.errors import DeviceError, EngineError, OutputError
from sdk.files import whole_file
from sdk.manifest import AnyEngine, CompilerNote, Engine, kernel_cache_name, sha256_of_file
from sdk.resources import cache_folder
from sdk.runtime.cuda.context import DeviceContext, never_freed, out_of_memory, tells_of_memory
from sdk.runtime.device import plan_problem
from sdk.runtime.session import expected_tensors

__all__ = ["LoadedPlan", "RuntimeCache", "loaded_plan"]

log = logging.getLogger(__name__)

_plans: dict[tuple[int, str], LoadedPlan] = {}
_plans_lock = threading.RLock()
DIGEST_BYTES = 32


class RuntimeCache:
    """A file of kernels compiled on one device by one TensorRT-RTX for one plan: their sha256, then the bytes.

    The digest finds damage, not malice: like a plan, the file is executable code and is as safe as the folder it is in.
    """

    def __init__(self, folders: tuple[Path, ...], name: str) -> None:
        self._paths = tuple(folder / name for folder in folders)
        self.blob: bytes | None = None

    def load(self) -> None:
        """Read the first cache there is; a damaged one is said and left aside."""
        for path in self._paths:
            try:
                content = path.read_bytes()
            except OSError:
                continue
            blob = content[DIGEST_BYTES:]
            if hashlib.sha256(blob).digest() == content[:DIGEST_BYTES]:
                self.blob = blob
                return
            log.warning("kernel cache '%s' is damaged and not used; kernels are compiled anew", path)

    def store(self, blob: bytes) -> Path | None:
        """Write `blob` where it can be written, atomically; the place, or None: nothing new, or no place."""
        if blob == self.blob:
            return None
        self.blob = blob
        for path in self._paths:
            try:
                with whole_file(path, private=True) as temporary:
                    temporary.write_bytes(hashlib.sha256(blob).digest() + blob)
            except OutputError as error:
                log.debug("kernel cache '%s' cannot be written (%s)", path, error)
                continue
            return path
        log.warning("the kernel cache cannot be written beside the engine nor in %s", self._paths[-1].parent)
        return None


class LoadedPlan:
    """A deserialised plan on one device, counted: the last `release` frees it."""

    def __init__(self, engine: AnyEngine, device: DeviceContext) -> None:
        compiler, path = engine.manifest.compiler, engine.plan_path
        if compiler is None or path is None:
            raise AssertionError("an engine without a plan was to be loaded")
        self.device = device
        self.users = 0
        self.compiler = compiler.name
        self.dla_core: int | None = compiler.options.get("dla_core")
        data = _read_verified(path, engine.manifest.files[compiler.plan])
        self._key = (device.index, engine.manifest.files[compiler.plan])
        self._plan: trt.Plan | None = _deserialised(device, compiler, data, engine)
        name = kernel_cache_name(compiler.version, device.compute_capability, self._key[1])
        self._cache = RuntimeCache((engine.folder, cache_folder() / "kernels"), name)
        if compiler.name == "tensorrt-rtx":
            self._cache.load()
            if self._cache.blob is not None:
                self.plan.use_kernels(self._cache.blob)
        if isinstance(engine, Engine):  # a detector's are checked where its outputs are read
            _check_tensors(self.plan, engine)

    @property
    def plan(self) -> trt.Plan:
        if self._plan is None:
            raise AssertionError("a plan is used after its last user released it")
        return self._plan

    def create_context(self, *, own_graph: bool = False) -> trt.Context:
        """An execution context without memory of its own, its kernels compiled for the very shapes it is given."""
        with _plans_lock:  # one at a time: TensorRT promises threads their contexts, not the making of them
            return self.plan.create_context(own_graph=own_graph)

    def keep_kernels(self) -> None:
        """Store what TensorRT-RTX compiled so far."""
        with _plans_lock:
            blob = self.plan.kernels()
            if blob:
                self._cache.store(blob)

    def release(self) -> None:
        """One user less; the context must be entered."""
        with _plans_lock:
            self.users -= 1
            if self.users == 0:
                _plans.pop(self._key, None)
                self._plan = None

    def abandon(self) -> None:
        """Leave the plan to the end of the process: the device is lost, or this is a forked child."""
        never_freed(self._plan)


def loaded_plan(engine: AnyEngine, device: DeviceContext) -> LoadedPlan:
    """The plan of `engine` on `device`, loaded now or before. The context must be entered."""
    problem = plan_problem(engine, device.index)
    if problem:
        raise EngineError(f"engine '{engine.folder}' cannot run on cuda:{device.index}: {problem}")
    compiler = engine.manifest.compiler
    key = (device.index, engine.manifest.files[compiler.plan] if compiler else "")
    with _plans_lock:
        plan = _plans.get(key)
        if plan is None:
            plan = _plans[key] = LoadedPlan(engine, device)
        plan.users += 1
        return plan


def _read_verified(path: Path, expected_sha256: str) -> bytes:
    """The plan's bytes: what is hashed is what TensorRT will see, even if the file changes meanwhile."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EngineError(f"plan '{path}' cannot be read ({error.strerror}); build the engine again") from error
    if hashlib.sha256(data).hexdigest() != expected_sha256:
        raise EngineError(f"plan '{path}' was altered after the engine was opened (now {sha256_of_file(path)[:12]}…)")
    return data


def _deserialised(device: DeviceContext, compiler: CompilerNote, data: bytes, engine: AnyEngine) -> trt.Plan:
    try:
        return trt.load_plan(compiler.name, data, dla_core=compiler.options.get("dla_core"))
    except (EngineError, DeviceError) as error:
        if tells_of_memory(error):
            raise out_of_memory(f"load engine '{engine.folder.name}'", len(data), device.free_bytes()) from error
        made = f"compiled by {compiler.name} {compiler.version} for compute capability {_targets(compiler)}"
        raise type(error)(f"engine '{engine.folder.name}', {made}, on cuda:{device.index}: {error}") from error


def _targets(compiler: CompilerNote) -> str:
    named = compiler.options.get("compute_capabilities", ())
    return ", ".join(named) if "current" not in named and named else compiler.target


def _check_tensors(plan: trt.Plan, engine: Engine) -> None:
    found = {tensor.name: tensor for tensor in plan.tensors}
    for name, shape in expected_tensors(engine.manifest.recipe).items():
        tensor = found.get(name)
        fits = tensor is not None and len(tensor.shape) == len(shape) and tensor.dtype in ("float32", "float16")
        if (
            tensor is None
            or not fits
            or any(want not in (-1, got) for want, got in zip(shape, tensor.shape, strict=False))
        ):
            got = "absent" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"
            raise EngineError(
                f"engine '{engine.folder}': tensor '{name}' of its plan must be float32 or float16 with the shape "
                f"{list(shape)} (got {got}); build the engine again"
            )
