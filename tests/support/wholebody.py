"""Whole bodies for tests of their scores: annotations as COCO-WholeBody's file has them, and results beside them.

truth, results = seeded_wholebodies(seed=5)               # flat, 133 joints; `in_parts` for the file's form
figures = figures_by_xtcocotools(truth, results)          # where that is installed
"""

import contextlib
import io

import numpy as np

from sdk.skeletons import SKELETONS

SKELETON = SKELETONS["wholebody133"]
NAMES = {"foot": "foot_kpts", "face": "face_kpts", "left_hand": "lefthand_kpts", "right_hand": "righthand_kpts"}


def seeded_wholebodies(seed, most=4):
    """Records of truth and results as `coco_ap` takes them, some parts not annotated, some results of nobody."""
    rng, truth, results = np.random.default_rng(seed), [], []
    sigmas = np.array(SKELETON.sigmas)[:, None]
    for image_id in range(1, 9):
        for _ in range(rng.integers(1, most + 1)):
            corner, side = rng.uniform(0, 300, 2), rng.uniform(30, 250, 2)
            points = corner + rng.uniform(0, 1, (133, 2)) * side
            visible = (rng.random(133) < 0.8) * 2.0
            for group, members in SKELETON.groups.items():
                if group != "body" and rng.random() < 0.4:
                    visible[list(members)] = 0
            area = float(side.prod() * 0.6)
            truth.append(
                {
                    "image_id": image_id, "bbox": [*corner.tolist(), *side.tolist()], "area": area, "iscrowd": 0,
                    "keypoints": np.concatenate([points, visible[:, None]], axis=1).ravel().tolist(),
                }
            )  # fmt: skip
            if rng.random() < 0.9:
                moved = points + rng.normal(0, 1, (133, 2)) * sigmas * 2 * area**0.5 * rng.uniform(0.3, 1.5)
                scores = rng.uniform(0, 1, (133, 1))
                if rng.random() < 0.2:
                    scores[91:112] = 0  # a hand of which nothing is seen
                flat = np.concatenate([moved, scores], axis=1).ravel().tolist()
                results.append({"image_id": image_id, "score": float(rng.random()), "keypoints": flat})
    return truth, results


def in_parts(record):
    """A record as COCO-WholeBody's files have it: the body under `keypoints`, the parts under names of their own."""
    triples = np.reshape(record["keypoints"], (133, 3))
    parts = {name: triples[list(SKELETON.groups[group])].ravel().tolist() for group, name in NAMES.items()}
    return {**record, "category_id": 1, "keypoints": triples[:17].ravel().tolist(), **parts}


def figures_by_xtcocotools(truth, results):
    """AP of each part, and AP, AP50, AP75, APM, APL of all joints, per cent, by the tool itself."""
    from xtcocotools.coco import COCO
    from xtcocotools.cocoeval import COCOeval

    annotations = [{**in_parts(record), "id": number} for number, record in enumerate(truth, start=1)]
    for record in annotations:
        record["num_keypoints"] = int((np.reshape(record["keypoints"], (-1, 3))[:, 2] > 0).sum())
    figures = {}
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.anno_file = ["none"]
        coco.dataset = {
            "images": [{"id": i} for i in sorted({record["image_id"] for record in truth})],
            "categories": [{"id": 1, "name": "person"}],
            "annotations": annotations,
        }
        coco.createIndex()
        found = coco.loadRes([in_parts(record) for record in results])
        kinds = {"body": "body", "foot": "foot", "face": "face", "lefthand": "left_hand", "righthand": "right_hand"}
        for kind, group in {**kinds, "wholebody": None}.items():
            members = range(133) if group is None else SKELETON.groups[group]
            evaluation = COCOeval(coco, found, f"keypoints_{kind}", np.array([SKELETON.sigmas[i] for i in members]))
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            if group is None:
                figures |= dict(
                    zip(("AP", "AP50", "AP75", "APM", "APL", "AR"), evaluation.stats.tolist(), strict=False)
                )
            else:
                figures[f"AP {group.replace('_', ' ')}"] = float(evaluation.stats[0])
    return {name: 100 * value for name, value in figures.items()}
