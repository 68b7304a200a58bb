"""Small annotated pictures, and their verification on the CPU.

found = verify(options(small_engine, write_annotated(folder)))
"""

import json

import numpy as np

from sdk.evaluate.datasets.dataset import DatasetOptions
from sdk.evaluate.verify import VerifyOptions

PERSONS_IN = (1, 3, 0, 20, 2, 1, 5)  # per picture; 20 is more than a batch
SIZE_WH = (160, 120)


def write_annotated(folder):
    """Pictures of noise, as PNG, and `annotations.json` with random poses."""
    import cv2

    rng, images, annotations = np.random.default_rng(3), [], []
    for n, persons in enumerate(PERSONS_IN):
        frame = rng.integers(0, 256, (SIZE_WH[1], SIZE_WH[0], 3), np.uint8)
        cv2.imwrite(str(folder / f"{n}.png"), frame)
        images.append({"id": 10 + n, "file_name": f"{n}.png", "width": SIZE_WH[0], "height": SIZE_WH[1]})
        for _ in range(persons):
            corner, extent = rng.uniform(0, 60, 2), rng.uniform(20, 60, 2)
            points = np.concatenate([corner + rng.uniform(0, 1, (14, 2)) * extent, np.full((14, 1), 2)], axis=1)
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": 10 + n, "category_id": 1, "iscrowd": 0,
                    "bbox": [*corner.tolist(), *extent.tolist()], "area": float(extent.prod() * 0.5),
                    "keypoints": points.ravel().tolist(),
                }
            )  # fmt: skip
    table = {"images": images, "annotations": annotations, "categories": []}
    (folder / "annotations.json").write_text(json.dumps(table))
    return folder


def options(engine, folder, annotations=None, **changes):
    dataset = DatasetOptions("lsp", annotations or folder / "annotations.json", folder)
    return VerifyOptions(engine, dataset, device="cpu", samples=20, workers=2, **changes)
