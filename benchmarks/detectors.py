"""What person detectors find on annotated pictures: who is found, how far boxes lie from the file's own, and box AP;
and what a call costs beside the bare ONNX Runtime call of the same graph.

Each file is made into an engine in fp32; the file's own graph, run by ONNX Runtime as it is, stands beside it. A person
counts as found where a box overlaps the annotated one by half. Size: the square root of the box's area. A call is
letterbox, graph, decoding and NMS of a frame; the bare one takes the picture as the network does. Both take turns, by
medians over the pictures and rounds, with one thread.

    python benchmarks/detectors.py                                   # the shared detectors on the shared samples
    python benchmarks/detectors.py --data val.json --pictures val2017 --detector yolox_s.onnx
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np

from sdk.media.sources import read_stored_image
from sdk.people.detector import Detector
from sdk.people.detector_forms import blob_of
from sdk.people.tracking import box_iou
from sdk.runtime.ort_session import onnxruntime_session
from sdk.toolchain.compile import CompileOptions
from sdk.toolchain.detectors.build import DetectorBuild, build_detector
from sdk.toolchain.detectors.taken import DetectorTold

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

from benchmarks.estimator_overhead import print_machine  # noqa: E402

SHARED = ROOT.parent / "shared"
SMALLEST_PX, OVERLAP = 64, 0.5
EVERYTHING = 0.01  # score from which boxes enter AP
FILES = {"rtmdet-nano-person": (320, 320), "yolox-nano-coco80": None}


def main() -> int:
    arguments = _arguments()
    truth = json.loads(arguments.data.read_text())
    frames = {
        image["id"]: np.asarray(read_stored_image(arguments.pictures / image["file_name"])) for image in truth["images"]
    }
    clock = process_time if arguments.cpu_time else perf_counter
    rows = [_row(path, truth, frames, arguments.rounds, clock) for path in arguments.detector]
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return 0
    print_machine()
    for row in rows:
        print(
            f"{row['detector']}: finds {row['found']} of {row['persons']} persons of {SMALLEST_PX} px and more at "
            f"score {row['threshold']:g} (the least sure scores {row['least_score']:.2f}); boxes at most "
            f"{row['apart_px']:.2g} px from the file's own; box AP {row['ap']:.1f}, of {SMALLEST_PX} px and more "
            f"{row['ap_large']:.1f}; a call takes {row['call_ms']:.2f} ms and the bare one of its graph "
            f"{row['bare_ms']:.2f}: {row['call_beside_bare']:.3f}x"
        )
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", type=Path, action="append", help="an ONNX file; default: the shared ones")
    parser.add_argument("--data", type=Path, default=SHARED / "data/samples/coco/test_coco.json")
    parser.add_argument("--pictures", type=Path, default=SHARED / "data/samples/coco")
    parser.add_argument("--rounds", type=int, default=30, help="of the timed calls of each picture")
    parser.add_argument("--cpu-time", action="store_true", help="processor time in place of the clock's")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    arguments.detector = arguments.detector or [SHARED / f"models/{name}.onnx" for name in FILES]
    return arguments


def _row(
    path: Path, truth: dict[str, Any], frames: dict[int, Any], rounds: int, clock: Callable[[], float]
) -> dict[str, Any]:
    size_hw = FILES.get(path.stem)
    with tempfile.TemporaryDirectory() as folder:
        options = DetectorBuild(
            None, onnx=path, told=DetectorTold(size_hw=size_hw), precision="fp32",
            compile=CompileOptions(compiler="none"), output=Path(folder) / "engine",
        )  # fmt: skip
        engine = build_detector(options)
        detect, every = Detector(engine), Detector(engine, score_threshold=EVERYTHING)
        own = Detector(path, size_hw=size_hw)
        found = {number: every(frame) for number, frame in frames.items()}
        apart = [_apart(detect(frame)[0], own(frame)[0]) for frame in frames.values()]
        spent = _spent(engine.graph_path, Detector(engine, threads=1), list(frames.values()), rounds, clock)
    persons = [a for a in truth["annotations"] if not a.get("iscrowd") and _side(a) >= SMALLEST_PX]
    scores = [_score(annotation, *found[annotation["image_id"]]) for annotation in persons]
    return {
        "detector": path.name,
        "threshold": detect.score_threshold,
        "persons": len(persons),
        "found": sum(score >= detect.score_threshold for score in scores),
        "least_score": min(scores, default=0.0),
        "apart_px": max(apart),
        **spent,
        "ap": _average_precision(truth, found, 0),
        "ap_large": _average_precision(truth, found, SMALLEST_PX),
    }


def _spent(
    graph: Path, detect: Detector, frames: Sequence[Any], rounds: int, clock: Callable[[], float]
) -> dict[str, float]:
    """The medians of a call and of the bare one, and of the one beside the other in the same round."""
    session, source = onnxruntime_session(graph, 1), detect.recipe.input
    blobs = [blob_of(frame, source) for frame in frames]
    calls = {"call": lambda at: detect(frames[at]), "bare": lambda at: session.run(None, {source.name: blobs[at]})}
    rows = []
    for number in range(1 + rounds):
        for at in range(len(frames)):
            row = {}
            for name in list(calls)[:: 1 if number % 2 else -1]:
                start = clock()
                calls[name](at)
                row[name] = 1e3 * (clock() - start)
            if number:  # the first warms up
                rows.append(row)
    told = {f"{name}_ms": median(row[name] for row in rows) for name in calls}
    return {**told, "call_beside_bare": median(row["call"] / row["bare"] for row in rows)}


def _side(annotation: dict[str, Any]) -> float:
    return float(np.sqrt(annotation["bbox"][2] * annotation["bbox"][3]))


def _score(annotation: dict[str, Any], boxes: Any, scores: Any) -> float:
    """The score of the surest box that overlaps an annotated one by half; 0 where none does."""
    x, y, width, height = annotation["bbox"]
    if not len(boxes):
        return 0.0
    overlap = box_iou(np.array([[x, y, x + width, y + height]], np.float32), boxes)[0]
    return float(scores[overlap >= OVERLAP].max(initial=0.0))


def _apart(boxes: Any, own: Any) -> float:
    """The furthest coordinate between boxes and their nearest of the file's; infinite where they are not as many."""
    if len(boxes) != len(own):
        return float("inf")
    return max((float(np.abs(own - box).max(axis=1).min()) for box in boxes), default=0.0)


def _average_precision(truth: dict[str, Any], found: dict[int, Any], least_px: float) -> float:
    """COCO's box AP of persons, in points, of boxes whose side is at least `least_px`."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations: Sequence[Any] = [{**a, "area": a["bbox"][2] * a["bbox"][3]} for a in truth["annotations"]]
    results = [
        {"image_id": number, "category_id": 1, "bbox": [*box[:2], *(box[2:] - box[:2])], "score": float(score)}
        for number, (boxes, scores) in found.items()
        for box, score in zip(boxes.astype(float), scores, strict=True)
    ]
    with redirect_stdout(StringIO()):
        coco = COCO()
        coco.dataset = {**truth, "annotations": annotations}
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.params.catIds = [1]
        evaluation.params.areaRng = [[least_px**2, 1e10]]
        evaluation.params.areaRngLbl = ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, 0, 0, -1]
    return 100 * float(precision[precision > -1].mean())


if __name__ == "__main__":
    raise SystemExit(main())
