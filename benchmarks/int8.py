"""INT8 on real photographs: what calibration, placement and the budget are worth, beside what others make of the same.

One float graph, one set of calibration crops, one set of annotated persons; rows differ in how the graph is quantised.
Every row runs on ONNX Runtime's CPU with Q/DQ as written, in float, so that no CPU kernel's habit enters; accuracy is
COCO AP by pycocotools, PCK@0.2 of the torso, and OKS and distance against the float network's own keypoints.

    python benchmarks/int8.py --data ../shared/data/lspet                           # the bundled network
    python benchmarks/int8.py --data ../shared/data/lspet --modelopt site-packages-with-nvidia-modelopt
    python benchmarks/int8.py --recipe-file r.toml --onnx network.onnx --data ../shared/data/lspet --json int8.json
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import onnx

from sdk import ops
from sdk.evaluate.datasets.dataset import DatasetOptions
from sdk.evaluate.datasets.loading import load_dataset
from sdk.evaluate.scores.average_precision import coco_ap
from sdk.evaluate.scores.oks import person_oks
from sdk.evaluate.scores.pck import pck, torso_px
from sdk.recipe import Recipe, recipe_by_name, recipes_from_file
from sdk.toolchain.build import BuildOptions, float_graph
from sdk.toolchain.calibrate import CalibrateOptions, calibrate
from sdk.toolchain.compile import CompileOptions, plan_from_graph
from sdk.toolchain.crops import CropSet, Person, people_from_data
from sdk.toolchain.graphs import serialized
from sdk.toolchain.int8 import DEFAULT_MAX_DROP
from sdk.toolchain.placement import PlacementOptions, placement_of
from sdk.toolchain.precision import fp16_graph_from_graph
from sdk.toolchain.quantize import QuantizeOptions, int8_graph_from_graph, qdq_graph_from_graph
from sdk.toolchain.sensitivity import draw_sensitivity, measure_sensitivity
from sdk.toolchain.table import CalibrationTable, table_from_file, write_table

CURVE_CROPS, GROUP_CROPS = 256, 64


@dataclass(frozen=True)
class Row:
    """One graph's figures. `int8_share` is of the multiply-accumulates."""

    name: str
    ap: float
    pck: float
    oks_loss: float
    distance_px: float
    int8_share: float
    graph_mb: float


class Yardstick:
    """Annotated persons, their crops, and the float network's keypoints on them, of joints without annotation too."""

    def __init__(self, model: onnx.ModelProto, recipe: Recipe, annotations: Path, limit: int | None) -> None:
        self.recipe = recipe
        dataset = load_dataset(DatasetOptions("lsp", annotations, annotations.parent, partly=True), recipe)
        rows = dataset.row[:limit]
        self.truth, self.areas = dataset.truth.keypoints[rows], dataset.truth.areas_px2[rows]
        self.boxes = dataset.truth.boxes_xyxy[rows]
        paths = [dataset.pictures[at].path for at in dataset.truth.picture[rows]]
        people = [Person(path, tuple(box)) for path, box in zip(paths, self.boxes.tolist(), strict=True)]
        self.batches = list(CropSet(tuple(people), recipe, len(people), 0, 0.0).batches(16))
        self.scale = np.concatenate([part.affines[:, 0, 0] for part in self.batches])
        self.macs = {node.name: node.macs for node in placement_of(model, PlacementOptions(quantise_all=True)).int8}
        self.expected = self._keypoints(model)

    def row(self, name: str, model: onnx.ModelProto) -> Row:
        found = self._keypoints(model)
        truth = self.expected[..., :3].copy()
        truth[..., 2] = 2
        similar = person_oks(found, truth, self.areas, self.recipe.skeleton.tolerances)
        moved = np.linalg.norm(found[..., :2] - self.expected[..., :2], axis=2) / self.scale[:, None]
        torsos = torso_px(self.truth, self.boxes, self.recipe.skeleton)
        return Row(
            name,
            ap=self._ap(found),
            pck=pck(found[..., :2], self.truth, torsos, 0.2).mean,
            oks_loss=100 * (1 - float(similar.mean())),
            distance_px=float(moved.mean()),
            int8_share=self._int8_share(model),
            graph_mb=len(serialized(model)) / 1e6,
        )

    def _keypoints(self, model: onnx.ModelProto) -> np.ndarray:  # P x K x 3, frame pixels
        from sdk.onnx_runtime import onnxruntime

        options = onnxruntime().SessionOptions()
        options.log_severity_level = 3
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        session = onnxruntime().InferenceSession(serialized(model), options, providers=["CPUExecutionProvider"])
        output, decoded = self.recipe.output, []
        for part in self.batches:
            x, y = session.run([output.x_name, output.y_name], {self.recipe.input.name: part.inputs})
            decoded.append(ops.decode(x, y, part.affines, output.split_ratio, score=output.score))
        return np.concatenate(decoded)

    def _ap(self, found: np.ndarray) -> float:  # P x K x 3
        truth = [
            {
                "image_id": i,
                "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()],
                "area": float(area),
                "iscrowd": 0,
                "keypoints": points.ravel().tolist(),
            }
            for i, (box, area, points) in enumerate(zip(self.boxes, self.areas, self.truth, strict=True))
        ]
        results = [
            {"image_id": i, "score": float(points[:, 2].mean()), "keypoints": points.ravel().tolist()}
            for i, points in enumerate(found.astype(float))
        ]
        return coco_ap(truth, results, list(range(len(truth))), self.recipe.skeleton.tolerances).figures["AP"]

    def _int8_share(self, model: onnx.ModelProto) -> float:
        """Work of the nodes whose input and weight both come out of a DequantizeLinear."""
        makers = {name: node.op_type for node in model.graph.node for name in node.output}
        int8 = [
            node.name
            for node in model.graph.node
            if node.name in self.macs and all(makers.get(name) == "DequantizeLinear" for name in node.input[:2])
        ]
        return sum(self.macs[name] for name in int8) / sum(self.macs.values())


def main() -> None:
    arguments = _arguments()
    recipe, model = _network(arguments)
    _head(recipe)
    crops = CropSet.drawn(
        people_from_data(arguments.data / "train.json", None, recipe), recipe, count=arguments.images, seed=0
    )
    table = _table(model, crops, arguments)
    measure = Yardstick(model, recipe, arguments.data / "val.json", arguments.persons)
    print(f"{len(measure.boxes)} persons of {arguments.data.name}/val.json\n")
    rows = []
    print(f"{'':47}{'AP':>7}{'PCK@0.2':>9}{'OKS lost':>10}{'moved px':>10}{'INT8 %':>8}{'MB':>7}")
    for name, graph in _variants(model, table, crops, arguments):
        row = measure.row(name, graph)
        rows.append(row)
        print(
            f"{row.name:47}{row.ap:7.2f}{row.pck:9.2f}{row.oks_loss:10.2f}{row.distance_px:10.3f}"
            f"{100 * row.int8_share:8.1f}{row.graph_mb:7.1f}",
            flush=True,
        )
    _verdict(rows)
    sizes = _plan_sizes(model, table) if arguments.plans else {}
    if arguments.json:
        facts = {"recipe": recipe.name, "rows": [vars(row) for row in rows], "plans_mb": sizes}
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--recipe", default="body17-nano-128x128")
    parser.add_argument("--recipe-file", type=Path)
    parser.add_argument("--onnx", type=Path, help="the float graph; default: the recipe's own weights")
    parser.add_argument("--data", type=Path, required=True, help="a folder with train.json and val.json")
    parser.add_argument("--images", type=int, default=512, help="calibration crops")
    parser.add_argument("--persons", type=int, help="only the first persons of val.json")
    parser.add_argument("--table", type=Path, help="a table made before: calibrate no more")
    parser.add_argument("--save-table", type=Path)
    parser.add_argument("--chart", type=Path)
    parser.add_argument("--modelopt", type=Path, help="a folder to import nvidia-modelopt from, if it is not installed")
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--plans", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _network(arguments: argparse.Namespace) -> tuple[Recipe, onnx.ModelProto]:
    if arguments.recipe_file is not None:
        recipes = recipes_from_file(arguments.recipe_file)
        recipe = recipes.get(arguments.recipe) or next(iter(recipes.values()))
    else:
        recipe = recipe_by_name(arguments.recipe)
    return recipe, float_graph(BuildOptions(recipe, onnx=arguments.onnx))[0]


def _head(recipe: Recipe) -> None:
    from sdk.onnx_runtime import onnxruntime

    lines = Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "?")
    print(
        f"{recipe.name}; {cpu}, Python {platform.python_version()}, onnxruntime {onnxruntime().__version__}, "
        f"onnx {onnx.__version__}"
    )


def _table(model: onnx.ModelProto, crops: CropSet, arguments: argparse.Namespace) -> CalibrationTable:
    if arguments.table is not None:
        return table_from_file(arguments.table)
    before_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    started, processor = time.perf_counter(), time.process_time()
    table = calibrate(model, crops, CalibrateOptions(source="train.json"))
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(
        f"calibration: {len(crops)} crops in {seconds:.1f} s ({processor:.1f} s of processor), "
        f"peak memory {peak_mib} MiB ({before_mib} before it)"
    )
    for trial in table.trials:
        verdict = "kept" if trial.kept else "left out"
        print(f"  {trial.remedy}: divergence {trial.without:.3g} without, {trial.applied:.3g} with: {verdict}")
    started, processor = time.perf_counter(), time.process_time()
    groups, curve = (crops.some(range(min(count, len(crops)))) for count in (GROUP_CROPS, CURVE_CROPS))
    table = replace(table, sensitivity=measure_sensitivity(model, table, groups, curve_crops=curve))
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    assert table.sensitivity is not None
    print(f"sensitivity: {len(table.sensitivity.groups)} groups in {seconds:.1f} s ({processor:.1f} s of processor)")
    if arguments.save_table is not None:
        write_table(table, arguments.save_table)
    if arguments.chart is not None:
        draw_sensitivity(table, arguments.chart)
    return table


def _variants(
    model: onnx.ModelProto, table: CalibrationTable, crops: CropSet, arguments: argparse.Namespace
) -> Iterator[tuple[str, onnx.ModelProto]]:
    def quantised(changed: CalibrationTable, **options: Any) -> onnx.ModelProto:
        return qdq_graph_from_graph(model, changed, QuantizeOptions(**options))[0]

    def by(method: str) -> CalibrationTable:
        tensors = {name: replace(t, amax=t.candidates[method]) for name, t in table.tensors.items()}
        return replace(table, tensors=tensors)

    yield "fp32", model
    yield "fp16", fp16_graph_from_graph(model)
    yield "naive: our writer, every weighted op, max", quantised(by("max"), quantise_all=True, correct_bias=False)
    if arguments.peers:
        for name, types in (("every operator", None), ("Conv, MatMul, Gemm, Add", ["Conv", "MatMul", "Gemm", "Add"])):
            yield f"naive: onnxruntime, {name}, max", _by_onnxruntime(model, crops, types)
    for method in ("max", "percentile", "entropy", "mse"):
        yield f"ours, no budget, {method}", quantised(by(method))
    yield "ours, no budget, auto", quantised(table, correct_bias=False)
    yield "ours, no budget, auto, bias correction", quantised(table, correct_bias=True)
    yield "ours, --quantize-all, auto", quantised(table, quantise_all=True)
    for budget in (DEFAULT_MAX_DROP, DEFAULT_MAX_DROP / 5):
        yield f"ours, --max-drop {budget:g}", quantised(table, max_drop=budget)
    yield (
        f"ours, --max-drop {DEFAULT_MAX_DROP:g}, typed (FP16 around it)",
        int8_graph_from_graph(model, table, QuantizeOptions(max_drop=DEFAULT_MAX_DROP))[0],
    )
    if arguments.peers:
        yield from _by_modelopt(model, crops, arguments.modelopt)


def _by_onnxruntime(model: onnx.ModelProto, crops: CropSet, types: list[str] | None) -> onnx.ModelProto:
    """`onnxruntime.quantization` with its own defaults, but symmetric INT8, which is all TensorRT takes."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._parts = crops.batches(16)

        def get_next(self) -> dict[str, np.ndarray] | None:
            part = next(self._parts, None)
            return None if part is None else {crops.recipe.input.name: part.inputs}

    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, before)
        quantize_static(
            before,
            after,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=types,
            per_channel=types is not None,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
        )
        return onnx.load(after)


def _by_modelopt(model: onnx.ModelProto, crops: CropSet, folder: Path | None) -> Iterator[tuple[str, onnx.ModelProto]]:
    """NVIDIA ModelOpt's post-training quantisation of the same graph with the same crops, on the CPU."""
    if folder is not None:
        sys.path.append(str(folder))
    try:
        modelopt = importlib.import_module("modelopt.onnx.quantization")
        version = importlib.import_module("modelopt").__version__
    except ImportError as error:
        print(f"{'NVIDIA ModelOpt':47}not importable here ({error})")
        return
    inputs = np.concatenate([part.inputs for part in crops.batches(32)])
    for method in ("max", "entropy"):
        with tempfile.TemporaryDirectory() as scratch:
            before, after = Path(scratch) / "float.onnx", Path(scratch) / "int8.onnx"
            onnx.save(model, before)
            modelopt.quantize(
                str(before),
                quantize_mode="int8",
                calibration_data={crops.recipe.input.name: inputs},
                calibration_method=method,
                calibration_eps=["cpu"],
                high_precision_dtype="fp32",
                output_path=str(after),
                log_level="ERROR",
            )
            yield f"NVIDIA ModelOpt {version}, {method}", onnx.load(after)


def _verdict(rows: list[Row]) -> None:
    by_name = {row.name: row for row in rows}
    exact, ours = by_name["fp32"], by_name[f"ours, --max-drop {DEFAULT_MAX_DROP:g}"]
    print()
    for row in rows:
        if row.name.startswith("naive"):
            lost, ours_lost = exact.ap - row.ap, exact.ap - ours.ap
            kept = 100 * (1 - max(ours_lost, 0.0) / lost) if lost > 0 else float("nan")
            oks = 100 * (1 - ours.oks_loss / row.oks_loss)
            print(f"{row.name}: {lost:.2f} AP lost, ours {ours_lost:.2f}: {kept:.0f} % of it recovered")
            print(f"{'':47}{row.oks_loss:.2f} OKS lost, ours {ours.oks_loss:.2f}: {oks:.0f} % recovered")


def _plan_sizes(model: onnx.ModelProto, table: CalibrationTable) -> dict[str, float]:
    from sdk import trt

    if trt.flavour("tensorrt-rtx").problem is not None:
        print("plan sizes: tensorrt-rtx is not installed")
        return {}
    graphs = {
        "fp32": model,
        "fp16": fp16_graph_from_graph(model),
        "int8": int8_graph_from_graph(model, table, QuantizeOptions(max_drop=DEFAULT_MAX_DROP))[0],
    }
    sizes = {}
    for name, graph in graphs.items():
        data = serialized(graph)
        sizes[name] = len(plan_from_graph(data, "tensorrt-rtx", CompileOptions())) / 1e6
        print(f"{name}: graph {len(data) / 1e6:.1f} MB, plan {sizes[name]:.1f} MB")
    return sizes


if __name__ == "__main__":
    main()
