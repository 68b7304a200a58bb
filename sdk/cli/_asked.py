"""A boxes file, asked frame by frame by `sdk predict`; what nobody asked for, and what is no box, is told at the end.

asked = AskedBoxes(boxes_from_file(path), sources)       # InputError where the file is of other pictures
boxes_xyxy, scores = asked.of(source, frame)
asked.report()                                           # on the log; `asked.failed` makes the exit status 1
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sdk.box_units import beyond_picture
from sdk.wording import counted

if TYPE_CHECKING:
    from sdk.media.boxfile import BoxFile, Place
    from sdk.media.sources import Source, SourceFrame

__all__ = ["AskedBoxes"]

log = logging.getLogger("sdk.predict")
NAMED = 5  # bad rows that are told one by one
Float32Array = NDArray[np.float32]


class AskedBoxes:
    """The boxes of a file, and what of it was asked for."""

    def __init__(self, boxes: BoxFile, sources: Sequence[Source]) -> None:
        boxes.check_fit([source.path for source in sources])
        self._boxes = boxes
        self._asked: set[Place] = set()
        self._frames = self._unknown = self._bad = self._given = self._beyond = 0
        for remark in boxes.remarks:
            log.warning("boxes file '%s': %s", boxes.path, remark)
        self._leave_out(boxes.nowhere)

    @property
    def failed(self) -> bool:
        return bool(self._bad) or self._fits_nowhere

    @property
    def _fits_nowhere(self) -> bool:
        return bool(self._boxes.rows) and not self._asked.intersection(self._boxes.rows)

    def of(self, source: Source, frame: SourceFrame) -> tuple[Float32Array, Float32Array]:
        """N x 4 xyxy and N scores; none for a frame that the file does not know."""
        self._frames += 1
        self._leave_out(self._boxes.refused_of(source.path, frame.number))
        place = self._boxes.place(source.path, frame.number)
        found = self._boxes.of(source.path, frame.number)
        if place is None or found is None:
            self._unknown += 1
            return np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
        self._asked.add(place)
        height, width = frame.picture.shape[:2]
        self._given += len(found[0])
        self._beyond += int(beyond_picture(found[0], np.array([[width, height]])).sum())
        return found

    def report(self) -> None:
        """What of the file was left out, and what no frame asked for."""
        boxes, unasked = self._boxes, self._boxes.unasked(self._asked)
        if self._unknown:
            log.warning("%d of %d frames are not in %s", self._unknown, self._frames, boxes.path)
        if unasked:
            lost, (image, frame) = sum(len(boxes.rows[place]) for place in unasked), unasked[0]
            said = "1 box is" if lost == 1 else f"{lost} boxes are"
            which = f"frame {frame} of '{image.removeprefix('#')}'"
            log.warning("%s of no frame that was read (such as %s in '%s')", said, which, boxes.path)
        if self._fits_nowhere:
            log.error("no box of '%s' is of a frame that was read; check names, and frames from 0", boxes.path)
        if 2 * self._beyond > self._given:  # some detectors do not clip: told, and no error
            rule = "x, y, width, height in JSON, and x1, y1, x2, y2 in CSV, in pixels of these pictures"
            log.warning(
                "%d of %d boxes of '%s' leave their frame; see that they are %s",
                self._beyond,
                self._given,
                boxes.path,
                rule,
            )
        if self._bad:
            log.error("%s of '%s' left out: no box", counted(self._bad, "row"), boxes.path)

    def _leave_out(self, reasons: Sequence[str]) -> None:
        for reason in reasons:
            self._bad += 1
            if self._bad <= NAMED:
                log.warning("%s; the row is left out", reason)
