"""The GPU run time held to its goals, on the GPU that is here: `python benchmarks/gpu.py`.

    python benchmarks/gpu.py [ENGINE ...] [--detector ENGINE] [--stand-in] [--rounds 2000] [--output docs/measurements]

Without engines, two are built with random weights (times do not hang on weights): rtmpose-s-256x192 and a 128x128 one,
fp16, batch 1 to 16; that needs the extra `build`. `--detector`: a person detector's engine with a plan for this GPU,
for frames that come without boxes (`sdk build-engine rtmdet-nano-person-320`). `--stand-in`, for GPUs that no installed
TensorRT makes plans for: stand-ins of our own for all plans (tests/support/stand_in.cu), so that what stands around a
plan is measured all the same; its report says so. Calls take turns, so that a clock that falls hits all alike; figures
are medians. Prints a report and writes it to OUTPUT/<device>.md. Without a GPU it says so and exits 1.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu_measures import MEASURES, whole_frames  # noqa: E402
from benchmarks.gpu_report import Report  # noqa: E402

RECIPES = ("rtmpose-s-256x192", "body17-nano-128x128")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="*", type=Path)
    parser.add_argument("--detector", type=Path)
    parser.add_argument("--stand-in", action="store_true")
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "measurements")
    arguments = parser.parse_args()
    from sdk.runtime.device import cuda_problem

    problem = cuda_problem()
    if problem:
        print(f"benchmarks/gpu.py needs a CUDA device: {problem}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        engines = arguments.engines or (stand_ins if arguments.stand_in else built)(Path(folder))
        detector = arguments.detector or (stand_in_detector_of(Path(folder)) if arguments.stand_in else None)
        report, facts = measured(engines, detector, arguments.rounds)
    text = report.text(facts)
    print(text)
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / (re.sub(r"[^a-z0-9]+", "-", facts["device"].lower()).strip("-") + ".md")
    path.write_text(text, encoding="utf-8")
    print(f"written to {path}", file=sys.stderr)
    return 0 if all(met != "NO" for *_, met in report.goals) else 1


def built(folder: Path) -> list[Path]:
    """Engines of the default recipes for this GPU, with random weights."""
    from sdk.manifest import BatchRange
    from sdk.recipe import recipe_by_name
    from sdk.runtime.cuda.context import device_context
    from sdk.toolchain.build import BuildOptions, build_engine
    from sdk.toolchain.compile import CompileOptions

    engines = []
    for name in RECIPES:
        here = CompileOptions(batch=BatchRange(1, 4, 16), compute_capabilities=_capabilities())
        options = BuildOptions(recipe_by_name(name), "fp16", random_seed=0, compile=here, output=folder / name)
        with device_context(0).entered("compile"):
            engines.append(build_engine(options).folder)
    return engines


def stand_ins(folder: Path) -> list[Path]:
    """Engines of the default recipes' shapes with a stand-in for the plan."""
    from sdk.recipe import recipe_by_name
    from sdk.runtime.device import compute_capability
    from tests.support.stand_in import library_of, stand_in_engine, use_stand_ins

    use_stand_ins(library_of(folder))
    options = {"precision": "fp16", "capability": compute_capability()}
    return [stand_in_engine(folder / name, recipe_by_name(name), **options).folder for name in RECIPES]


def stand_in_detector_of(folder: Path) -> Path:
    """The engine of a detector with a stand-in for its plan."""
    from sdk.runtime.device import compute_capability
    from tests.support.stand_in import stand_in_detector

    made: Path = stand_in_detector(folder / "detector", capability=compute_capability()).folder
    return made


def _capabilities() -> tuple[str, ...]:
    from sdk import trt

    return () if trt.flavour("tensorrt").version else ("current",)


def measured(engines: list[Path], detector: Path | None, rounds: int) -> tuple[Report, dict[str, Any]]:
    from sdk.evaluate.speed.machine import machine_facts
    from sdk.manifest import open_engine
    from sdk.runtime.cuda.context import device_context

    report, device = Report(), device_context(0)
    for folder in engines:
        engine = open_engine(folder)
        for measure in MEASURES:
            measure(report, engine, rounds)
        whole_frames(report, engine, detector, rounds)
    notes = [open_engine(folder).manifest.compiler for folder in engines]
    versions = sorted({f"{note.name} {note.version}" for note in notes if note})  # "tensorrt stand-in": no TensorRT
    return report, {"device": device.name, "compilers": versions, **machine_facts()}


if __name__ == "__main__":
    sys.exit(main())
