"""Boxes from files, for `sdk predict`: COCO's annotations and results, CSV, and files and rows that are none."""

import json
from pathlib import Path

import pytest

from sdk.cli._image_ids import ImageIds
from sdk.errors import InputError
from sdk.media import sources
from sdk.media.boxfile import boxes_from_file
from sdk.media.sources import Source
from tests.support.predict import lines_of, predict, write

pytestmark = pytest.mark.native
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
pytest.importorskip("cv2")

ANNOTATIONS = {
    "images": [
        {"id": 70, "file_name": "0.png"},
        {"id": 71, "file_name": "sub/1.png"},
        {"id": 72, "file_name": "2.png"},
    ],
    "annotations": [
        {"image_id": 70, "bbox": [1, 2, 30, 40], "category_id": 4},
        {"image_id": 70, "bbox": [5, 6, 30, 40], "category_id": 4, "iscrowd": 1},
        {"image_id": 71, "bbox": [7, 8, 9, 10], "category_id": 4},
        {"image_id": 70, "bbox": [0, 0, 9, 10], "category_id": 9},
    ],
    "categories": [{"id": 4, "name": "person"}, {"id": 9, "name": "dog"}],
}
RESULTS = [
    {"image_id": 0, "bbox": [1, 2, 30, 40], "score": 0.9, "category_id": 1},
    {"image_id": 0, "bbox": [3, 4, 30, 40], "score": 0.1, "category_id": 1},
    {"image_id": 1, "bbox": [7, 8, 9, 10], "score": 0.8, "category_id": 2},
    {"image_id": 2, "bbox": [7, 8, 9, 10], "score": 0.7, "category_id": 1},
]
CSV = "file,x1,y1,x2,y2,score\n0.png,1,2,31,42,0.9\n0.png,3,4,33,44,0.1\nsub/1.png,7,8,16,18,\n"


def test_annotations_give_boxes_and_ids(small_engine, photos, tmp_path):
    boxes = write(tmp_path / "a.json", ANNOTATIONS)
    (photos / "sub").mkdir()
    (photos / "1.png").rename(photos / "sub" / "1.png")
    pictures = [photos / "0.png", photos / "sub" / "1.png", photos / "2.png"]
    results = ["--jsonl", tmp_path / "p", "--coco", tmp_path / "r.json"]
    assert predict(small_engine, *pictures, "--boxes", boxes, *results) == 0
    assert [line["boxes"] for line in lines_of(tmp_path / "p")] == [[[1, 2, 31, 42]], [[7, 8, 16, 18]], []]
    assert [record["image_id"] for record in json.loads((tmp_path / "r.json").read_text())] == [70, 71]


def test_results_are_matched_by_number_and_score(small_engine, photos, tmp_path, caplog):
    boxes = write(tmp_path / "d.json", RESULTS)
    assert predict(small_engine, photos, "--boxes", boxes, "--jsonl", tmp_path / "p") == 0
    found = lines_of(tmp_path / "p")
    assert [line["boxes"] for line in found] == [[[1, 2, 31, 42]], [], [[7, 8, 16, 18]]]
    assert found[0]["box_scores"] == pytest.approx([0.9])
    assert predict(small_engine, photos, "--boxes", boxes, "--box-threshold", "0.05", "--jsonl", tmp_path / "p") == 0
    assert len(lines_of(tmp_path / "p")[0]["boxes"]) == 2


def test_csv_gives_boxes_and_unknown_images_are_told(small_engine, photos, tmp_path, caplog):
    boxes = write(tmp_path / "b.csv", CSV)
    assert predict(small_engine, photos, "--boxes", boxes, "--jsonl", tmp_path / "p") == 0
    assert [len(line["boxes"]) for line in lines_of(tmp_path / "p")] == [1, 0, 0]
    assert "2 of 3 frames are not in" in caplog.text


def test_csv_gives_boxes_by_frame(small_engine, clip, tmp_path):
    boxes = write(tmp_path / "b.csv", "frame,file,x1,y1,x2,y2\n0,clip.avi,1,2,31,42\n2,clip.avi,5,6,35,46\n")
    assert predict(small_engine, clip, "--boxes", boxes, "--jsonl", tmp_path / "p") == 0
    assert [line["boxes"] for line in lines_of(tmp_path / "p")] == [[[1, 2, 31, 42]], [], [[5, 6, 35, 46]], [], []]


BAD_BOX_FILES = {
    "empty": ("b.json", "", r"boxes file .*b\.json' is not JSON .* or CSV in a file named \.csv"),
    "a number": ("b.json", 3, r"must be COCO annotations .* \(got int\)"),
    "no annotations": ("b.json", {"images": []}, "key 'annotations' must be a list of tables"),
    "image without a name": (
        "b.json",
        {"images": [{"id": 1}]},
        r"images\[0\] must have .* text 'file_name' \(got 1, None\)",
    ),
    "not a table": ("b.json", [7], "detections must be a list of tables"),
    "images a number": ("b.json", {"images": 5}, "key 'images' must be a list of tables"),
    "annotation not a table": ("b.json", {"images": [], "annotations": [7]}, "'annotations' must be a list of tables"),
    "csv without header": (
        "b.csv",
        "0.png,1,2,3,4\n",
        "header line must name file, x1, y1, x2, y2 .* missing: file, x1",
    ),
}


@pytest.mark.parametrize(("name", "content", "message"), BAD_BOX_FILES.values(), ids=BAD_BOX_FILES)
def test_a_boxes_file_of_another_kind_is_refused(tmp_path, name, content, message):
    with pytest.raises(InputError, match=message):
        boxes_from_file(write(tmp_path / name, content))


def test_a_missing_boxes_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.json' cannot be read"):
        boxes_from_file(tmp_path / "none.json")


BAD_ROWS = {  # a boxes file of three images, the bad one among them -> what is told of it
    "no width, csv": (
        "b.csv",
        "file,x1,y1,x2,y2\n1.png,5,5,5,9\n1.png,1,2,31,42\n",
        "line 2: the box has no area: x2 must exceed x1 (got x1=5.0, x2=5.0); the row is left out",
    ),
    "NaN, csv": ("b.csv", "file,x1,y1,x2,y2\n1.png,1,2,31,42\n1.png,nan,2,3,4\n", "line 3: the box must be finite"),
    "score NaN, csv": (
        "b.csv",
        "file,x1,y1,x2,y2,score\n1.png,5,5,7,9,nan\n1.png,1,2,31,42,1\n",
        "line 2: the score must be finite (got nan)",
    ),
    "no width, json": ("b.json", [[5, 5, 0, 9], [1, 2, 30, 40]], "[0]: the box has no area"),
    "NaN, json": ("b.json", [[1, 2, 30, 40], [5, float("nan"), 1, 9]], "[1]: the box must be finite"),
    "vast, json": ("b.json", [[1, 2, 30, 40], [5, 10**400, 1, 9]], "[1]: the box must be finite"),
    "three numbers, json": ("b.json", [[1, 2, 30, 40], [0, 0, 1]], "[1]: 'bbox' must be x, y, width, height"),
    "texts, json": ("b.json", [[1, 2, 30, 40], [0, 0, 1, "2"]], "[1]: 'bbox' must be x, y, width, height"),
    "none, json": ("b.json", [[1, 2, 30, 40], None], "[1]: 'bbox' must be x, y, width, height (got None)"),
    "a word, csv": (
        "b.csv",
        "file,x1,y1,x2,y2\n1.png,1,2,three,4\n1.png,1,2,31,42\n",
        "line 2: could not convert string to float: 'three'; all columns but file are numbers",
    ),
    "cut short, csv": ("b.csv", "file,x1,y1,x2,y2\n1.png,1,2,31,42\n1.png,1,2\n", "line 3: could not convert"),
    "empty cells, csv": ("b.csv", "file,x1,y1,x2,y2\n1.png,1,2,31,42\n1.png,,,,\n", "line 3: could not convert"),
    "half a frame, csv": (
        "b.csv",
        "file,x1,y1,x2,y2,frame\n1.png,1,2,31,42,0\n1.png,1,2,31,42,0.5\n",
        "line 3: a frame must be a whole number (got '0.5')",
    ),
    "without its file, csv": (
        "b.csv",
        "x1,y1,x2,y2,file\n1,2,31,42,1.png\n1,2,31,42\n",
        "line 3: column 'file' is empty; every line names its image",
    ),
}


@pytest.mark.parametrize(("name", "content", "message"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_row_that_is_no_box_is_left_out_and_counted(small_engine, photos, tmp_path, caplog, name, content, message):
    if not isinstance(content, str):
        content = [{"image_id": 1, "bbox": box, "score": 0.9, "category_id": 1} for box in content]
    boxes, lines = write(tmp_path / name, content), tmp_path / "p.jsonl"
    assert predict(small_engine, photos, "--boxes", boxes, "--jsonl", lines) == 1
    assert f"boxes file '{boxes}'" in caplog.text and message in caplog.text
    assert f"1 row of '{boxes}' left out: no box" in caplog.text
    assert [line["boxes"] for line in lines_of(lines)] == [[], [[1, 2, 31, 42]], []]


def result(image, box=(1, 2, 30, 40), **more):
    return {"image_id": image, "category_id": 1, "bbox": list(box), "score": 0.9, **more}


UNPLACED = {  # entry among good ones -> what is told of it
    "no image": ([result(1), result(None)], "[1]: key 'image_id' must be that of an image of the file (got None)"),
    "score null": ([result(1), result(1, score=None)], "[1]: 'score' must be a number, or left out (got None)"),
    "unlisted image": (
        {"images": [{"id": 1, "file_name": "1.png"}], "annotations": [result(1), result(9)]},
        "annotations[1]: key 'image_id' must be that of an image of the file (got 9)",
    ),
}


@pytest.mark.parametrize(("content", "message"), UNPLACED.values(), ids=UNPLACED)
def test_an_entry_that_is_of_no_image_is_left_out_and_counted(small_engine, photos, tmp_path, caplog, content, message):
    boxes = write(tmp_path / "b.json", content)
    assert predict(small_engine, photos, "--boxes", boxes, "--jsonl", tmp_path / "p") == 1
    assert message in caplog.text and "1 row of" in caplog.text
    assert [line["boxes"] for line in lines_of(tmp_path / "p")] == [[], [[1, 2, 31, 42]], []]


AS_TOOLS_WRITE = {  # results -> remark, or none
    "category 0": ([result(1, category_id=0)], "the only category is 0: its records are taken for persons"),
    "categories from 0": (
        [result(1, category_id=0), result(0, category_id=1)],
        "categories count from 0: its records are taken for persons",
    ),
    "other categories": ([result(1), result(0, category_id=7)], "1 record of categories that are no person's left out"),
    "numbers as decimals": ([result(1.0, category_id=1.0)], ""),
    "numbers as texts": ([result("1", category_id="1")], ""),
    "stems": ([result("0001")], ""),
}


@pytest.mark.parametrize(("content", "remark"), AS_TOOLS_WRITE.values(), ids=AS_TOOLS_WRITE)
def test_results_are_taken_as_tools_write_them(small_engine, photos, tmp_path, caplog, content, remark):
    boxes = write(tmp_path / "b.json", content)
    assert predict(small_engine, photos, "--boxes", boxes, "--jsonl", tmp_path / "p") == 0
    assert [line["boxes"] for line in lines_of(tmp_path / "p")] == [[], [[1, 2, 31, 42]], []]
    assert remark in caplog.text and (remark or "boxes file" not in caplog.text)


def test_results_name_pictures_by_their_stems(small_engine, photos, tmp_path):
    (photos / "1.png").rename(photos / "night-1.png")
    boxes = write(tmp_path / "b.json", [result("night-1")])
    assert predict(small_engine, photos, "--boxes", boxes, "--jsonl", tmp_path / "p", "--coco", tmp_path / "c") == 0
    assert [len(line["boxes"]) for line in lines_of(tmp_path / "p")] == [0, 0, 1]


def test_boxes_of_other_pictures_are_refused_with_a_name_from_each_side(small_engine, photos, tmp_path, capsys):
    images = [{"id": number, "file_name": f"upload/4/cb06-{number}.png"} for number in range(3)]
    boxes = write(tmp_path / "b.json", {"images": images, "annotations": [result(1)]})
    assert predict(small_engine, photos, "--boxes", boxes, "--coco", tmp_path / "r.json") == 1
    told = capsys.readouterr().err
    assert f"is of other pictures: it names 'upload/4/cb06-0.png', and the sources '{photos}/0.png'" in told
    assert not (tmp_path / "r.json").exists()


def test_boxes_that_no_frame_asked_for_are_counted(small_engine, clip, tmp_path, caplog):
    boxes = write(
        tmp_path / "b.csv", "frame,file,x1,y1,x2,y2\n1,clip.avi,1,2,31,42\n7,clip.avi,5,6,35,46\n8,clip.avi,5,6,35,46\n"
    )
    assert predict(small_engine, clip, "--boxes", boxes) == 0
    assert "2 boxes are of no frame that was read (such as frame 7 of 'clip.avi' in" in caplog.text


def test_boxes_of_which_no_frame_asked_for_any_are_an_error(small_engine, clip, tmp_path, caplog):
    boxes = write(tmp_path / "b.csv", "frame,file,x1,y1,x2,y2\n5,clip.avi,1,2,31,42\n")
    assert predict(small_engine, clip, "--boxes", boxes) == 1
    assert "no box of" in caplog.text and "check names, and frames from 0" in caplog.text


def test_frames_may_be_written_as_decimals(small_engine, clip, tmp_path):
    boxes = write(tmp_path / "b.csv", "frame,file,x1,y1,x2,y2\n3.0,clip.avi,1,2,31,42\n")
    assert predict(small_engine, clip, "--boxes", boxes, "--jsonl", tmp_path / "p") == 0
    assert [len(line["boxes"]) for line in lines_of(tmp_path / "p")] == [0, 0, 0, 1, 0]


OTHER_UNITS = {
    "shares, json": ("b.json", [result(1, (0.1, 0.2, 0.3, 0.4)), result(2, (0.5, 0.5, 0.1, 0.2))], "0.3 x 0.4"),
    "shares, csv": ("b.csv", "file,x1,y1,x2,y2\n1.png,0.1,0.2,0.4,0.6\n", "such as 0.3 x 0.4"),
    "corners, with sizes": (
        "b.json",
        {
            "images": [{"id": 1, "file_name": "1.png", "width": 120, "height": 90}],
            "annotations": [result(1, (70, 20, 110, 80))],
        },
        r"leave their picture \(such as one to 180, 100 in one of 120 x 90\); they look like x1, y1, x2, y2",
    ),
}


@pytest.mark.parametrize(("name", "content", "message"), OTHER_UNITS.values(), ids=OTHER_UNITS)
def test_boxes_in_other_units_are_noticed(tmp_path, name, content, message):
    with pytest.raises(InputError, match=message):
        boxes_from_file(write(tmp_path / name, content))


def test_boxes_that_leave_their_frames_are_noticed(small_engine, photos, tmp_path, caplog):
    boxes = write(tmp_path / "b.json", [result(1, (70, 20, 110, 80)), result(2, (50, 20, 100, 80))])
    assert predict(small_engine, photos, "--boxes", boxes) == 0
    assert "2 of 2 boxes of" in caplog.text and "leave their frame; see that they are x, y, width" in caplog.text


def test_bad_rows_of_other_images_are_nobodys_fault(small_engine, photos, tmp_path):
    boxes = write(tmp_path / "b.csv", "file,x1,y1,x2,y2\n1.png,5,5,5,9\n0.png,1,2,31,42\n")
    assert predict(small_engine, photos / "0.png", "--boxes", boxes) == 0


IMAGE_IDS = {  # boxes file's images or None, sources -> ids of all frames, in order
    "told, and a clip": ({"clip.mp4": 1, "2.jpg": 2}, ["clip.mp4", "2.jpg"], [1, 3, 4, 2]),
    "told, and a clip that is not": ({"a.jpg": 7, "b.jpg": 9}, ["clip.mp4", "a.jpg"], [10, 11, 12, 7]),
    "told twice the same": ({"1.jpg": 5}, ["x/1.jpg", "y/1.jpg"], [5, 6]),
    "told, and one that is not": ({"cat.jpg": 501, "dog.jpg": 777}, ["aaa.jpg", "cat.jpg", "dog.jpg"], [778, 501, 777]),
    "numbers": (None, ["7.jpg", "003.jpg", "clip.mp4"], [7, 3, 8, 9, 10]),
    "names": (None, ["clip.mp4", "a.jpg", "clip2.mp4"], [2, 3, 4, 1, 5, 6, 7]),
}


@pytest.mark.parametrize("claimed", [0, 1, 3])
@pytest.mark.parametrize(("listed", "paths", "expected"), IMAGE_IDS.values(), ids=IMAGE_IDS)
def test_every_frame_has_an_image_id_of_its_own(tmp_path, listed, paths, expected, claimed):
    boxes = None
    if listed is not None:
        images = [{"id": number, "file_name": name} for name, number in listed.items()]
        boxes = boxes_from_file(write(tmp_path / "b.json", {"images": images, "annotations": []}))
    asked = [Source(Path(path), "video" if "clip" in path else "image", claimed) for path in paths]
    ids = ImageIds(asked, boxes)
    found = [ids.of(source, frame) for source in asked for frame in range(3 if source.kind == "video" else 1)]
    assert found == expected and len(set(found)) == len(found)


def test_ids_of_the_file_stay_although_a_picture_is_not_in_it(small_engine, photos, tmp_path):
    names = {"0.png": 501, "2.png": 777}
    images = [{"id": number, "file_name": name} for name, number in names.items()]
    annotations = [{"image_id": number, "bbox": [1, 2, 30, 40], "category_id": 1} for number in names.values()]
    boxes = write(tmp_path / "b.json", {"images": images, "annotations": annotations})
    assert predict(small_engine, photos, "--boxes", boxes, "--coco", tmp_path / "r.json") == 0
    assert {r["file_name"]: r["image_id"] for r in json.loads((tmp_path / "r.json").read_text())} == names


@pytest.mark.parametrize("refusing", [False, True], ids=["together", "one by one where one is refused"])
def test_pictures_whose_boxes_are_known_share_batches_and_keep_their_order(
    small_engine, photos, tmp_path, monkeypatch, refusing
):
    """An unreadable one between them too; the poses are those of a call a picture."""
    import cv2

    from sdk import PoseEstimator

    rows = ("file,x1,y1,x2,y2", "0.png,1,2,31,42", "1.png,7,8,16,18", "1.png,0,0,60,60", "2.png,5,5,50,80")
    boxes = write(tmp_path / "b.csv", "\n".join(rows))
    (photos / "1a.png").write_text("no picture")
    together, called = [], PoseEstimator.many
    read, reads = [], sources.read_image
    monkeypatch.setattr(sources, "read_image", lambda path: (read.append(path.name), reads(path))[1])

    def many(self, frames, *given, **scores):
        together.append(len(frames))
        if refusing:
            raise InputError("frame 0: refused")
        return called(self, frames, *given, **scores)

    monkeypatch.setattr(PoseEstimator, "many", many)
    assert predict(small_engine, photos, "--boxes", boxes, "--jsonl", tmp_path / "p", "--save", tmp_path / "s") == 1
    found = lines_of(tmp_path / "p")
    assert [Path(line["source"]).name for line in found] == ["0.png", "1.png", "2.png"] and together == [2, 1]
    assert read == ["0.png", "1.png", "1a.png", "2.png"]
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["0.png", "1.png", "2.png"]
    with PoseEstimator(small_engine, device="cpu", threads=1) as estimate:
        for line in found:
            poses = estimate(cv2.imread(line["source"]), line["boxes"])
            assert line["keypoints"] == poses.keypoints.tolist() and line["scores"] == poses.scores.tolist()


def test_a_picture_that_a_later_step_refuses_leaves_nothing_to_the_next_ones_file(
    small_engine, photos, tmp_path, monkeypatch, caplog
):
    boxes = write(tmp_path / "b.csv", "file,x1,y1,x2,y2\n0.png,1,2,31,42\n1.png,7,8,16,18\n1.png,0,0,60,60\n")
    refusing = "def f(frame, poses):\n    if frame.source.endswith('0.png'): raise InputError('not this one')\n"
    write(tmp_path / "refusing_the_first.py", f"from sdk.errors import InputError\n{refusing}")
    monkeypatch.chdir(tmp_path)
    words = ["--boxes", boxes, "--mmpose", "mm", "--call", "refusing_the_first:f"]
    assert predict(small_engine, photos, *words) == 1
    assert "0.png' cannot be read: not this one" in caplog.text
    found = {path.name: len(json.loads(path.read_text())) for path in (tmp_path / "mm").iterdir()}
    assert found == {"0.json": 1, "1.json": 2, "2.json": 0}
