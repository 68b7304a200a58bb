"""What a call costs on the host's side of the GPU run time, measured without a GPU.

    python benchmarks/gpu_host.py

The real PyCUDA and the extension's own bindings call a libcuda that does nothing for real
(`tests/support/simulated_libcuda.c`): a graph's launch only keeps its stream busy for a while. So this counts Python,
PyCUDA, the copies of pageable frames and how late the end of the device's work is noticed; not the driver, not the
device. It is what has to fit beside the plan in the goal "whole call <= 1.15x the plan alone". Needs PyCUDA and a C++
compiler.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

ROUNDS = 5000
FRAME_HW = (1080, 1920)
BUSY_US = (0, 150)  # what the device takes for a frame


def main() -> int:
    if find_spec("pycuda") is None:
        print("benchmarks/gpu_host.py needs PyCUDA (pip install '.[cuda]')", file=sys.stderr)
        return 1
    from tests.support.emulated_gpu import emulated_cuda
    from tests.support.engines import SMALL, pooled_simcc_graph, wrapped_engine
    from tests.support.libcuda import SIMULATED, compiled_libcuda
    from tests.support.simulated_plan import simulated_engine

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        library = compiled_libcuda(folder, SIMULATED.read_text())
        graph = pooled_simcc_graph(folder / "small.onnx", SMALL)
        engine = simulated_engine(wrapped_engine(graph, folder / "engine", SMALL)).folder
        environment = {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": str(ROOT)}
        words = [sys.executable, __file__, str(engine), str(library), str(emulated_cuda(folder).path)]
        return subprocess.run(words, env=environment, check=False).returncode


def measure(engine_folder: str, library: str, emulated: str) -> None:
    """In the process that has the simulated libcuda."""
    from tests.support import bindings_on_simulated_libcuda as simulation
    from tests.support.cuda_frames import DeviceArray, random_affines, random_frame

    gpu, _, device, _ = simulation.opened(engine_folder, library, emulated)
    frame = random_frame(0, FRAME_HW)
    on_device = DeviceArray(frame)
    on_device.__cuda_array_interface__["stream"] = None
    frames = {"on the device": on_device, "pageable": frame}
    for busy_us in BUSY_US:
        for count in (1, 8):
            affines = random_affines(count, 0, FRAME_HW)
            for name, given in frames.items():
                device.lib.sim_busy(0.0, 0)
                gpu.run(given, affines)
                device.lib.sim_busy(1e-6 * busy_us, 1)
                spent = []
                for _ in range(ROUNDS):
                    start = perf_counter()
                    gpu.run(given, affines)
                    spent.append(1e6 * (perf_counter() - start) - busy_us)
                p50, p99 = np.percentile(spent, (50, 99))
                what = f"1080p frame {name}, {count} persons, device busy for {busy_us} us"
                print(f"{what}: {p50:.1f} us a call beside that, p99 {p99:.1f} us")


if __name__ == "__main__":
    if len(sys.argv) == 4:
        measure(*sys.argv[1:])
    else:
        sys.exit(main())
