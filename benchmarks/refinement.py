"""What sub-bin refinement gains: on a trained SimCC network, with its logits as they are and rounded to 8 bits.

    python benchmarks/refinement.py [--network FILE] [--data FOLDER] [--persons 300]

Two errors are told, in pixels of the crop. `to labels`: mean distance to the annotated joints (labels are rough, so all
rules lie near one another). `jitter`: each person is cropped at SHIFTS positions less than a bin apart; a joint should
not move in the frame; told is the root mean square of what it moves, over joints that stay within two bins of one
another (so that a jump to another peak does not count). Rounding to bins shows there alone, free of the labels' noise.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sdk import ops
from sdk.geometry import crop_affines

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
SIZE_HW, SPLIT_RATIO = (128, 128), 2.0
SHIFTS = np.array([0.0, 0.13, 0.27, 0.41])  # crop pixels
SHARED = Path(__file__).resolve().parents[2] / "shared"

Array = NDArray[Any]


def logits_of_persons(network: Path, data: Path, count: int) -> tuple[Array, Array, Array, Array]:
    """x and y logits (P*S x K x bins), affines (P*S x 2 x 3) and labels (P x K x 3), persons then shifts."""
    from sdk.onnx_runtime import onnxruntime

    session = onnxruntime().InferenceSession(str(network), providers=["CPUExecutionProvider"])
    table = json.loads((data / "val.json").read_text())
    files = {image["id"]: image["file_name"] for image in table["images"]}
    x, y, affines, labels = [], [], [], []
    for person in table["annotations"][:count]:
        frame = cv2.imread(str(data / files[person["image_id"]]))
        left, top, width, height = person["bbox"]
        box = np.array([[left, top, left + width, top + height]], np.float32)
        placed = np.repeat(crop_affines(box, SIZE_HW, 1.25), len(SHIFTS), axis=0)
        placed[:, :, 2] += (SHIFTS[:, None] * placed[0, 0, 0]).astype(np.float32)
        crops = ops.crop(frame, placed, SIZE_HW, mean=MEAN, std=STD)
        found = [session.run(["simcc_x", "simcc_y"], {"input": crops[i : i + 1]}) for i in range(len(SHIFTS))]
        x.append(np.concatenate([each[0] for each in found]))
        y.append(np.concatenate([each[1] for each in found]))
        affines.append(placed)
        labels.append(np.reshape(person["keypoints"], (-1, 3)))
    return np.concatenate(x), np.concatenate(y), np.concatenate(affines), np.array(labels, np.float64)


def rounded(logits: Array, bits: int) -> Array:
    """Symmetric, one scale for the tensor, as an INT8 classifier's output would be."""
    scale = np.abs(logits).max() / (2 ** (bits - 1) - 1)
    return (np.round(logits / scale) * scale).astype(np.float32)


def errors(x: Array, y: Array, affines: Array, labels: Array, refine: Any) -> tuple[float, float]:
    """(to labels, jitter) in crop pixels."""
    joints = ops.decode(x, y, affines, SPLIT_RATIO, refine=refine)
    scale = affines[:: len(SHIFTS), 0, 0].astype(np.float64)
    places = joints[..., :2].reshape(len(labels), len(SHIFTS), -1, 2).astype(np.float64) / scale[:, None, None, None]
    seen = labels[..., 2] > 0
    distance = np.linalg.norm(places[:, 0] - labels[..., :2] / scale[:, None, None], axis=-1)[seen]
    near = distance < np.percentile(distance, 60)  # whatever is far off is no matter of bins
    spread = places - places.mean(axis=1, keepdims=True)
    steady = np.ptp(places, axis=1).max(axis=-1) < 2.5 / SPLIT_RATIO
    moved = np.sqrt((spread**2).mean(axis=(1, 3)))[steady]
    return float(distance[near].mean()), float(np.sqrt((moved**2).mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure sub-bin refinement on a trained network.")
    parser.add_argument("--network", type=Path, default=SHARED / "models/body14-lspet-128x128.onnx")
    parser.add_argument("--data", type=Path, default=SHARED / "data/lspet")
    parser.add_argument("--persons", type=int, default=300)
    arguments = parser.parse_args()
    x, y, affines, labels = logits_of_persons(arguments.network, arguments.data, arguments.persons)
    lines = [
        "| refine | to labels, fp32 | jitter, fp32 | to labels, 8 bits | jitter, 8 bits |",
        "| --- | --- | --- | --- | --- |",
    ]
    for refine in ops.REFINEMENTS:
        exact = errors(x, y, affines, labels, refine)
        coarse = errors(rounded(x, 8), rounded(y, 8), affines, labels, refine)
        lines.append(f"| {refine} | {exact[0]:.3f} px | {exact[1]:.3f} px | {coarse[0]:.3f} px | {coarse[1]:.3f} px |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
