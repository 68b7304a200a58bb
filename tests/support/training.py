"""A COCO-format data set of rendered figures and recipes small enough to train in a test."""

import json
from pathlib import Path

import cv2
import numpy as np

from sdk.media.figures import rendered_figure
from sdk.recipe import recipe_by_name, recipe_from_table
from sdk.skeletons import skeleton_by_name

JOINTS = list(skeleton_by_name("crowdpose14").joints)


def write_data(folder: Path, count: int, seed: int = 0) -> Path:
    """`count` pictures and their annotation file, which is returned."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for index in range(count):
        frame, joints = rendered_figure(np.random.default_rng((seed, index)), (72, 64))
        name = f"images/{seed}-{index}.png"
        cv2.imwrite(str(folder / name), frame)
        low, high = joints.min(axis=0), joints.max(axis=0)
        images.append({"id": index, "file_name": name, "width": 64, "height": 72})
        annotations.append(
            {
                "id": index,
                "image_id": index,
                "category_id": 1,
                "keypoints": np.column_stack([joints, np.full(14, 2)]).ravel().tolist(),
                "bbox": [*low.tolist(), *(high - low).tolist()],
                "area": float(np.prod(high - low)),
            }
        )
    document = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person", "keypoints": JOINTS}],
    }
    path = folder / f"data-{seed}.json"
    path.write_text(json.dumps(document))
    return path


def tiny_recipe(head="marginal", size=32):
    """The bundled network's kind, a hundredth of its size."""
    table = recipe_by_name("body14-nano-128x128").to_table()
    table["name"] = f"tiny-{size}x{size}"
    table["input"].update(height=size, width=size)
    table["network"]["backbone"].update(channels=[4, 4, 8, 8, 8], depths=[0, 0, 0, 0], neck=[8, 8])
    if head == "heatmap":
        table["network"]["head"] = {"kind": "heatmap", "deconv": []}
        table["output"] = {"kind": "heatmap"}
    return recipe_from_table(table, "tiny")


def write_tiny_recipe(path: Path) -> Path:
    """`tiny_recipe` as a recipe file."""
    path.write_text(
        """
format = 1
[base]
description = "tiny"
source = "tests"
licence = "Apache-2.0"
skeleton = "crowdpose14"
network.backbone = { kind = "lowres", channels = [4, 4, 8, 8, 8], depths = [0, 0, 0, 0], neck = [8, 8] }
network.head = { kind = "marginal", depth = 0 }
protocol = { flip_test = false, flip_shift = false }
output = { kind = "simcc", split_ratio = 2.0, score = "min_softmax" }
[base.input]
height = 32
width = 32
mean = [123.675, 116.28, 103.53]
std = [58.395, 57.12, 57.375]
colour = "rgb"
box_padding = 1.25
[recipes."tiny-32x32"]
""",
        encoding="utf-8",
    )
    return path
