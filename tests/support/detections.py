"""The CUDA half's detections on any memory: of the host for the emulated GPU, of the device for a real one.

found = detected(kernels, case.form, outputs, case.arguments(), crops=4)
found.boxes, found.scores, found.affines
"""

from typing import Any, NamedTuple

import numpy as np

from sdk.ops_detections import detection_rules, output_table
from sdk.runtime.cuda.kernels import FRAME_BYTES, CropsAt, DetectWork, FoundAt, frame_record

SIZE_HW, PADDING = (64, 48), 1.25  # of the crops
RECORD = frame_record(4096, 0, 30, 0, 9, 10)  # of a frame that nothing reads


class OnHost:
    """An array as `gpu_engines.OnGpu` would have it."""

    def __init__(self, array):
        self.array, self.address = np.ascontiguousarray(array), 0
        self.address = self.array.ctypes.data

    def numpy(self):
        return self.array


class Detected(NamedTuple):
    boxes: Any  # n x 4
    scores: Any  # n
    records: Any  # crops x FRAME_BYTES
    affines: Any  # 2 x crops x 2 x 3: own and mirrored


def detected(kernels, form, outputs, arguments, *, memory=OnHost, crops=0):
    """What the kernel finds in the outputs, which lie in memory that holds anything before."""
    held = [memory(each) for each in outputs]
    parts = [form.boxes, form.scores, *([form.label] if form.label else [])]
    tables = tuple(
        output_table(p, held[p.output].address, outputs[p.output].shape, outputs[p.output].dtype) for p in parts
    )
    most, rows = arguments["most"], tables[0][1]
    (scale_x, _, shift_x), (_, scale_y, shift_y) = arguments["to_frame"].tolist()
    height, width = arguments["frame_hw"]
    place = memory(np.float32([scale_x, shift_x, scale_y, shift_y, width, height]))
    count, scores = memory(np.full(1, -7, np.int32)), memory(np.full(most, np.nan, np.float32))
    boxes, scratch = memory(np.full((most + 1, 4), np.nan, np.float32)), memory(np.full(rows + 1, -1, np.int64))
    records, affines = (
        memory(np.full((crops + 1, FRAME_BYTES), 7, np.uint8)),
        memory(np.full((2, crops + 1, 2, 3), np.nan, np.float32)),
    )
    frame = memory(np.frombuffer(RECORD, np.uint8))
    row_bytes = 24 * (crops + 1)
    crops_at = CropsAt(
        records.address, affines.address, affines.address + row_bytes, crops, frame.address, *SIZE_HW, PADDING
    )
    work = DetectWork(detection_rules(form), arguments["size_hw"], arguments["score_threshold"], arguments["iou"], most)
    aligned = boxes.address + -boxes.address % 16  # the row more is for this
    found_at = FoundAt(count.address, aligned, scores.address, scratch.address)
    kernels.detections(found_at, tables, work, place.address, crops_at if crops else None, 0)
    n, first = int(count.numpy()[0]), (aligned - boxes.address) // 4
    found = boxes.numpy().reshape(-1)[first : first + 4 * n].reshape(n, 4).copy()
    return Detected(found, scores.numpy()[:n].copy(), records.numpy()[:crops], affines.numpy()[:, :crops])
