"""What a call costs on the host's side of the GPU run time, measured without a GPU.

    python benchmarks/gpu_host.py [--against CHECKOUT | --bindings] [--rounds 12] [--calls 400]

The whole call of a `PoseEstimator`, its pipeline alone, and frames in which a detector finds four persons, followed or
not; these are compared with the other checkout's call with four given boxes where it has no detector on the GPU.

The real PyCUDA and the extension's own bindings call a libcuda that does nothing for real
(`tests/support/simulated_libcuda.c`): a graph's launch only keeps its stream busy for a while. So this counts Python,
PyCUDA, checks, the copies of pageable frames and how late the end of the device's work is noticed; not the driver, not
the device. It is what has to fit beside the plan. `--against` names another
checkout with its extension built in place: both are timed in turns, in processes of their own, and compared; with
`--bindings` PyCUDA and cuda-bindings are. Needs PyCUDA and a C++ compiler.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from benchmarks.children import Child

ROOT = Path(__file__).resolve().parents[1]
FRAME_HW = (1080, 1920)
PERSONS = (1, 8)
GIVEN = "whole call, 1080p on the device, N=4"
FOUND = "1080p on the device, 4 persons found"
FOLLOWED = "1080p on the device, 4 persons found and followed"
MEASURE, PREPARE = "--measure", "--prepare"
Spent = dict[str, float]  # what -> microseconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--against", type=Path, metavar="CHECKOUT")
    other.add_argument("--bindings", action="store_true", help="compare PyCUDA with cuda-bindings")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--calls", type=int, default=400, help="of each case in a round")
    arguments = parser.parse_args()
    if find_spec("pycuda") is None or (arguments.bindings and find_spec("cuda") is None):
        print("benchmarks/gpu_host.py needs PyCUDA, and --bindings cuda-bindings too", file=sys.stderr)
        return 1
    sides = [(ROOT, "pycuda")]
    if arguments.bindings:
        sides.append((ROOT, "cuda-bindings"))
    if arguments.against:
        sides.append((arguments.against.resolve(), "pycuda"))
    sys.path.append(str(ROOT))
    with tempfile.TemporaryDirectory() as name, timed_children(sides, Path(name), arguments.calls) as children:
        rounds = [[child.asked() for child in children] for _ in range(1 + arguments.rounds)][1:]
    print_table([[each[i] for each in rounds] for i in range(len(sides))])
    return 0


def print_table(rounds: list[list[Spent]]) -> None:
    """One line a case: the median of the rounds' medians, and how it compares."""
    for case in rounds[0][0]:
        ours, *others = (median(each.get(case, each[given_for(case)]) for each in checkout) for checkout in rounds)
        compared = "".join(f", {other:.1f} us there: {ours / other:.2f}x" for other in others)
        print(f"{case}: {ours:.1f} us{compared}")


def given_for(case: str) -> str:
    """What a case is compared with in a checkout that does not have it."""
    name, comma, suffix = case.partition(", beside")
    return (GIVEN if name in (FOUND, FOLLOWED) else name) + comma + suffix


@contextmanager
def timed_children(sides: list[tuple[Path, str]], folder: Path, calls: int) -> Iterator[list[Child]]:
    """For each checkout and binding a process of its own that times one round of all cases when asked."""
    from benchmarks.children import Child, environment_of

    with ExitStack() as stack:
        started = []
        for number, (checkout, binding) in enumerate(sides):
            place = folder / str(number)
            place.mkdir()
            preparing = [sys.executable, __file__, PREPARE, place]
            told = subprocess.run(
                preparing, env=environment_of(checkout), check=True, stdout=subprocess.PIPE, text=True
            )
            prepared = told.stdout.split()
            words = (__file__, MEASURE, *prepared, str(calls), binding)
            started.append(stack.enter_context(Child(checkout, *words, LD_PRELOAD=prepared[1])))
        yield started


# ---- in the children: the checkout on the path is the one that is timed ------------------------------------------


def prepare(folder: Path) -> None:
    """An engine, the simulated libcuda, the emulated CUDA half and, where the checkout can use it, a detector's."""
    from tests.support.emulated_gpu import emulated_cuda
    from tests.support.engines import SMALL, pooled_simcc_graph, wrapped_engine
    from tests.support.libcuda import SIMULATED, compiled_libcuda
    from tests.support.simulated_plan import simulated_engine

    library = compiled_libcuda(folder, SIMULATED.read_text())
    graph = pooled_simcc_graph(folder / "small.onnx", SMALL)
    engine = simulated_engine(wrapped_engine(graph, folder / "engine", SMALL)).folder
    detector = "-"
    if find_spec("tests.support.small_detector"):
        from tests.support.small_detector import small_detector_engine

        detector = small_detector_engine(folder / "detector").folder
    print(engine, library, emulated_cuda(folder).path, detector)


def measure(engine_folder: str, library: str, emulated: str, detector: str, calls: int, binding: str) -> None:
    """In the process that has the simulated libcuda: a round of all cases for each line of the standard input."""
    if binding != "pycuda":  # which is taken where it is installed
        from tests.support.libcuda import use_only

        use_only(binding)
    from sdk import PoseEstimator

    name = next(name for name in ("bindings", "pycuda") if find_spec(f"tests.support.{name}_on_simulated_libcuda"))
    simulation = import_module(f"tests.support.{name}_on_simulated_libcuda")

    found = () if detector == "-" else (opened_detector(detector),)
    gpu, kernels, device, _ = simulation.opened(engine_folder, library, emulated, *found)
    for module in ("sdk.runtime.estimator", "sdk.runtime.opening"):  # where it is asked for depends on the checkout
        if find_spec(module):
            import_module(module).open_pipeline = lambda *_, **__: gpu
    cases = dict(cases_of(PoseEstimator(engine_folder), gpu, device))
    for engine in found:
        cases.update(cases_of_detection(gpu, kernels, engine))
    device.lib.sim_busy(0.0, 0)
    for call in [*cases.values()] * 3:  # the third time as many persons are expected as are found
        call()
    for _ in sys.stdin:
        spent = {}
        for busy_us, suffix in ((0, ""), (150, ", beside the device's 150 us")):
            device.lib.sim_busy(1e-6 * busy_us, 1)
            for name, call in cases.items():
                spent[name + suffix] = microseconds(call, calls) - (0 if isinstance(call, UploadPart) else busy_us)
        print(json.dumps(spent), flush=True)


def cases_of(estimate: Any, gpu: Any, device: Any) -> Iterator[tuple[str, Callable[[], object]]]:
    from sdk.geometry import crop_affines
    from tests.support.cuda_frames import DeviceArray, random_frame

    source = gpu.recipe.input
    frame = random_frame(0, FRAME_HW)
    on_device = DeviceArray(frame)
    on_device.__cuda_array_interface__["stream"] = None
    four = persons(4)
    yield GIVEN, lambda: estimate(on_device, four)
    for count in PERSONS:
        boxes = persons(count)
        affines = crop_affines(boxes, source.size_hw, source.box_padding)
        for where, given in (("on the device", on_device), ("pageable", frame)):
            yield f"whole call, 1080p {where}, N={count}", lambda f=given, b=boxes: estimate(f, b)
            yield f"pipeline, 1080p {where}, N={count}", lambda f=given, a=affines: gpu.run(f, a)
        yield f"upload's part, 1080p pageable, N={count}", UploadPart(gpu, frame, affines)


def opened_detector(folder: str) -> Any:
    from sdk.manifest import open_detector_engine

    return open_detector_engine(Path(folder))


def cases_of_detection(gpu: Any, kernels: Any, detector: Any) -> Iterator[tuple[str, Callable[[], object]]]:
    from sdk import PoseEstimator
    from sdk.runtime import opening
    from tests.support.cuda_frames import DeviceArray
    from tests.support.small_detector import crowded_frame

    finding = type(gpu)(gpu.engine, kernels=kernels, detector=detector)
    opening.open_pipeline = lambda *_, **__: finding
    coarse = crowded_frame(hw=(FRAME_HW[0] // 12, FRAME_HW[1] // 12))
    on_device = DeviceArray(np.ascontiguousarray(np.repeat(np.repeat(coarse, 12, 0), 12, 1)))
    on_device.__cuda_array_interface__["stream"] = None
    for name, options in ((FOUND, {}), (FOLLOWED, {"tracker": True})):
        estimate = PoseEstimator(gpu.engine, detector=detector, max_persons=4, **options)
        assert [len(estimate(on_device)) for _ in range(3)] == [4] * 3
        yield name, lambda e=estimate: e(on_device)


class UploadPart:
    """A pipeline's call of which only what it says of the upload counts."""

    def __init__(self, gpu: Any, frame: Any, affines: Any) -> None:
        self.run = lambda: 1e3 * float(gpu.run(frame, affines)[1]["upload"])

    def __call__(self) -> float:
        return self.run()


def microseconds(call: Callable[[], object], calls: int) -> float:
    spent = []
    for _ in range(calls):
        start = perf_counter()
        told = call()
        whole = 1e6 * (perf_counter() - start)
        spent.append(told if isinstance(call, UploadPart) else whole)
    return median(spent)


def persons(count: int) -> Any:
    """Boxes of 180 x 400 pixels: of one a region of 0.5 MB is uploaded."""
    rng = np.random.default_rng(count)
    corner = rng.uniform((0, 0), (FRAME_HW[1] - 200, FRAME_HW[0] - 420), (count, 2))
    return np.concatenate([corner, corner + np.array([180, 400])], axis=1).astype(np.float32)


if __name__ == "__main__":
    if sys.argv[1:2] == [PREPARE]:
        prepare(Path(sys.argv[2]))
    elif sys.argv[1:2] == [MEASURE]:
        measure(*sys.argv[2:6], int(sys.argv[6]), sys.argv[7])
    else:
        sys.exit(main())
