"""Boxes from CSV: lines, frames, names and what is refused. Whole runs of boxes files are `test_predict`'s."""

from pathlib import Path

import numpy as np
import pytest

from sdk.errors import InputError
from sdk.media.boxfile import boxes_from_file

HEADER = "file,x1,y1,x2,y2,score,frame"


def csv_of(folder, *lines, name="boxes.csv", encoding="utf-8"):
    path = folder / name
    path.write_text("\n".join((HEADER, *lines)), encoding=encoding)
    return path


@pytest.mark.parametrize(("name", "encoding"), [("BOXES.CSV", "utf-8"), ("boxes.csv", "utf-8-sig")])
def test_csv_is_known_by_its_ending_and_may_begin_as_windows_writes_it(tmp_path, name, encoding):
    boxes, scores = boxes_from_file(csv_of(tmp_path, "1.jpg,1,2,3,4", name=name, encoding=encoding)).of(Path("1.jpg"))
    assert boxes.tolist() == [[1, 2, 3, 4]] and scores.tolist() == [1]


def test_a_box_that_scores_just_enough_is_kept(tmp_path):
    path = csv_of(tmp_path, "1.jpg,0,0,9,9,0.5", "1.jpg,0,0,9,9,0.49")
    np.testing.assert_array_equal(boxes_from_file(path, score_threshold=0.5).of(Path("1.jpg"))[1], [0.5])


def test_a_name_is_found_without_its_detours(tmp_path):
    assert boxes_from_file(csv_of(tmp_path, "./photos//1.jpg,0,0,9,9")).of(Path("photos/1.jpg")) is not None


def test_rows_and_their_faults_are_of_their_frame(tmp_path):
    found = boxes_from_file(csv_of(tmp_path, "a.mp4,0,0,9,9,,1", "a.mp4,9,0,0,9,,2"))
    assert [len(found.of(Path("a.mp4"), frame)[0]) for frame in range(3)] == [0, 1, 0]
    assert len(found.of(Path("a.mp4"))[0]) == 0
    assert [len(found.refused_of(Path("a.mp4"), frame)) for frame in range(3)] == [0, 0, 1]


def test_text_in_another_encoding_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"boxes\.csv' cannot be read .*codec can't decode"):
        boxes_from_file(csv_of(tmp_path, "straße.jpg,0,0,9,9", encoding="latin-1"))
