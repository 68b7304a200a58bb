"""TensorRT on the simulated device: a plan that ONNX Runtime runs, on "device memory", when its stream comes to it.

engine = simulated_engine(folder)
kernels = install(monkeypatch, Simulated(), engine, emulated)
"""

import numpy as np

from sdk import trt
from sdk.errors import DeviceError
from sdk.manifest import CompilerNote
from sdk.recipe import Recipe
from sdk.runtime.ort_session import OrtSession
from tests.support.engines import given_plan
from tests.support.simulated_cuda import install_device
from tests.support.small_detector import SIMULATED as DETECTORS
from tests.support.small_detector import session_of

KERNELS = 7  # that a run of the plan starts


class SimulatedPlan:
    """`sdk.trt.Plan` by ONNX Runtime on the simulated memory."""

    activation_bytes = 4096
    aux_streams = 2

    def __init__(self, device, session, recipe: Recipe):
        self.device, self.session = device, session
        height, width = recipe.input.size_hw
        simcc = recipe.output.kind == "simcc"
        sizes = [(bins,) for bins in recipe.bins] if simcc else [(height // 4, width // 4)]
        outputs = {name: (-1, recipe.joints, *size) for name, size in zip(recipe.output.names, sizes, strict=True)}
        inputs = {recipe.input.name: (-1, 3, height, width)}
        self.tensors = tuple(
            trt.Tensor(name, name in inputs, device.plan_dtype, shape) for name, shape in {**inputs, **outputs}.items()
        )

    def results(self, crops):
        """The outputs, as a session gives them."""
        return self.session.run(crops)

    def create_context(self, *, own_graph=False):
        if own_graph:
            self.device.own_graphs += 1
        return SimulatedContext(self)

    def kernels(self):
        return None


class SimulatedDetectorPlan(SimulatedPlan):
    """The same of a detector, by its graph."""

    def __init__(self, device, engine):
        self.device, self.session = device, session_of(engine.graph_path)
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        given = [(each, True) for each in inputs] + [(each, False) for each in outputs]
        self.tensors = tuple(
            trt.Tensor(each.name, is_input, device.plan_dtype, tuple(each.shape)) for each, is_input in given
        )

    def results(self, crops):
        return self.session.run(None, {self.tensors[0].name: crops})


class SimulatedContext:
    def __init__(self, plan):
        self.plan, self.addresses, self.shapes, self.memory, self.aux_streams = plan, {}, {}, None, None
        self.ran = False

    def set_memory(self, pointer, size_bytes):
        assert pointer % 256 == 0
        self.memory = self.plan.device.bytes_at(pointer, size_bytes)

    def set_shape(self, name, shape):
        self.shapes[name] = tuple(shape)

    def set_address(self, name, pointer):
        assert pointer % 256 == 0
        self.addresses[name] = pointer

    def capturable(self, stream):
        return True

    def set_aux_streams(self, streams):
        assert len(streams) == self.plan.aux_streams and all(map(self.plan.device.stream, streams))
        self.aux_streams = streams

    def enqueue(self, stream):
        device, chosen = self.plan.device, self.plan.device.stream(stream)
        assert self.aux_streams is not None and stream not in self.aux_streams
        if device.refuse_in_capture and chosen.capture is not None:
            raise DeviceError("tensorrt did not run: refused")
        assert self.ran or chosen.capture is None, "TensorRT prepares a context in its first run, which is no capture"
        self.ran = True
        addresses, (shape,) = dict(self.addresses), self.shapes.values()
        device.enqueues += 1

        def run():
            self.memory[:] = 0xAB  # the plan's scratch is the plan's
            source, *outputs = self.plan.tensors
            dtype = np.dtype(source.dtype)
            crops = device.bytes_at(addresses[source.name], dtype.itemsize * int(np.prod(shape))).view(dtype)
            results = self.plan.results(crops.reshape(shape).astype(np.float32))
            for tensor, logits in zip(outputs, results, strict=True):
                written = logits.astype(tensor.dtype).reshape(-1).view(np.uint8)
                device.bytes_at(addresses[tensor.name], written.nbytes)[:] = written

        run.kernels = KERNELS
        chosen.put(run)


def simulated_engine(folder, **options):
    """Give an engine folder made by `wrapped_engine` a plan of these options that only the simulation can read."""
    note = CompilerNote("tensorrt", "10.3.0", "8.7", "tensorrt.plan", options)
    return given_plan(folder, note, b"simulated plan of " + str(folder).encode())


def plan_loader(device, engine, session, detector=None):
    """What takes the place of `sdk.trt.load_plan`."""

    def load_plan(compiler, data, dla_core=None):
        if data.startswith(DETECTORS):
            return SimulatedDetectorPlan(device, detector)
        return SimulatedPlan(device, session, engine.manifest.recipe)

    return load_plan


def install(monkeypatch, device, engine, cuda, detector=None):
    """Put the simulation in the place of PyCUDA and TensorRT; the kernels, as `install_device` gives them."""
    session = OrtSession(engine, threads=1)
    monkeypatch.setattr(trt, "flavour", lambda name: trt.Flavour(name, "10.3.0"))
    monkeypatch.setattr(trt, "load_plan", plan_loader(device, engine, session, detector))
    return install_device(monkeypatch, device, cuda)
