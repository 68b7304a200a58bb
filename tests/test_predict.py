"""`sdk predict`: sources, boxes, results on disk and on stdout, and what is left when something goes wrong."""

import errno
import json
from pathlib import Path, PurePath

import numpy as np
import pytest

from sdk import PoseEstimator
from sdk.cli import main
from sdk.cli.predict import _ImageIds, _pictures_of
from sdk.errors import InputError
from sdk.runtime import outputs
from sdk.runtime.boxfile import boxes_from_file
from sdk.runtime.sources import Source, Unreadable, frames_of, read_image, read_stored_image, sources_from
from tests.support.engines import SMALL, pooled_simcc_graph, wrapped_engine
from tests.support.pictures import turned_jpeg, vast_png

pytestmark = pytest.mark.native
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
cv2 = pytest.importorskip("cv2")


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict")
    return wrapped_engine(pooled_simcc_graph(folder / "g.onnx", SMALL), folder / "e", SMALL)


def noise(seed, size_hw=(90, 120)):
    small = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return cv2.resize(small, size_hw[::-1], interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(3):
        cv2.imwrite(str(folder / f"{index}.png"), noise(index))
    return folder


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (120, 90))
    for index in range(5):
        writer.write(noise(index))
    writer.release()
    return path


def predict(engine, *words):
    return main(["predict", str(engine), "--device", "cpu", "--threads", "1", *map(str, words)])


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def names_in(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file()) if folder.exists() else []


# --- the good way ----------------------------------------------------------------------------------------------------


def test_a_folder_gives_lines_results_and_pictures(engine, photos, tmp_path):
    out, lines, coco = tmp_path / "out", tmp_path / "p.jsonl", tmp_path / "deep" / "r.json"
    assert predict(engine, photos, "--save", out, "--jsonl", lines, "--coco", coco, "--threshold", "-99") == 0
    assert names_in(out) == ["0.png", "1.png", "2.png"]
    found = lines_of(lines)
    assert [Path(line["source"]).name for line in found] == ["0.png", "1.png", "2.png"]
    with PoseEstimator(engine, device="cpu", threads=1) as estimate:
        for index, (line, record) in enumerate(zip(found, json.loads(coco.read_text()), strict=True)):
            poses = estimate(noise(index))
            np.testing.assert_allclose(line["keypoints"], poses.keypoints, atol=1e-4)
            np.testing.assert_allclose(line["scores"], poses.scores, atol=1e-5)
            assert (line["width"], line["height"], line["frame"]) == (120, 90, 0) and line["track_ids"] is None
            assert record["image_id"] == index and record["file_name"] == f"{index}.png"
            np.testing.assert_allclose(np.reshape(record["keypoints"], (-1, 3))[:, :2], poses.keypoints[0], atol=1e-3)
            assert (cv2.imread(str(out / f"{index}.png")) != noise(index)).any()


def test_a_video_gives_a_video_and_ids(engine, clip, tmp_path):
    out, lines = tmp_path / "out", tmp_path / "p.jsonl"
    assert predict(engine, clip, "--save", out, "--jsonl", lines) == 0
    found = lines_of(lines)
    assert [line["frame"] for line in found] == list(range(5))
    assert all(len(line["track_ids"]) == len(line["keypoints"]) for line in found)
    capture = cv2.VideoCapture(str(out / "clip.mp4"))
    assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == 5 and capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    assert names_in(out) == ["clip.mp4"]


def test_without_tracking_a_video_has_no_ids(engine, clip, tmp_path):
    assert predict(engine, clip, "--no-track", "--jsonl", tmp_path / "p.jsonl") == 0
    found = lines_of(tmp_path / "p.jsonl")
    assert all(line["track_ids"] is None and line["boxes"] == [[0, 0, 120, 90]] for line in found)


def test_json_on_stdout_is_the_lines_of_the_file(engine, photos, tmp_path, capsys):
    assert predict(engine, photos / "1.png", "--json", "--jsonl", tmp_path / "p.jsonl") == 0
    (printed,) = map(json.loads, capsys.readouterr().out.splitlines())
    (written,) = lines_of(tmp_path / "p.jsonl")
    assert printed == written


def test_one_is_not_told_as_many(engine, photos, caplog):
    with caplog.at_level("INFO", "sdk"):
        assert predict(engine, photos / "1.png") == 0
    assert "1 person in 1 frame of 1 source" in caplog.messages


def test_the_summary_is_one_line_a_frame(engine, photos, capsys):
    assert predict(engine, photos) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 3 and "0.png:0  1 person, " in printed[0]


@pytest.mark.data
def test_a_detector_finds_the_persons(engine, shared, tmp_path):
    photo = shared / "data" / "samples" / "coco" / "000000000785.jpg"
    detector = shared / "models" / "rtmdet-nano-person.onnx"
    assert predict(engine, photo, "--detector", detector, "--coco", tmp_path / "r.json") == 0
    (record,) = json.loads((tmp_path / "r.json").read_text())
    assert record["image_id"] == 785


# --- boxes from files ------------------------------------------------------------------------------------------------


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


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


def test_annotations_give_boxes_and_ids(engine, photos, tmp_path):
    boxes = write(tmp_path / "a.json", ANNOTATIONS)
    (photos / "sub").mkdir()
    (photos / "1.png").rename(photos / "sub" / "1.png")
    sources = [photos / "0.png", photos / "sub" / "1.png", photos / "2.png"]
    assert predict(engine, *sources, "--boxes", boxes, "--jsonl", tmp_path / "p", "--coco", tmp_path / "r.json") == 0
    assert [line["boxes"] for line in lines_of(tmp_path / "p")] == [[[1, 2, 31, 42]], [[7, 8, 16, 18]], []]
    assert [record["image_id"] for record in json.loads((tmp_path / "r.json").read_text())] == [70, 71]


def test_results_are_matched_by_number_and_score(engine, photos, tmp_path, caplog):
    boxes = write(tmp_path / "d.json", RESULTS)
    assert predict(engine, photos, "--boxes", boxes, "--jsonl", tmp_path / "p") == 0
    found = lines_of(tmp_path / "p")
    assert [line["boxes"] for line in found] == [[[1, 2, 31, 42]], [], [[7, 8, 16, 18]]]
    assert found[0]["box_scores"] == pytest.approx([0.9])
    assert predict(engine, photos, "--boxes", boxes, "--box-threshold", "0.05", "--jsonl", tmp_path / "p") == 0
    assert len(lines_of(tmp_path / "p")[0]["boxes"]) == 2


def test_csv_gives_boxes_and_unknown_images_are_told(engine, photos, tmp_path, caplog):
    boxes = write(tmp_path / "b.csv", CSV)
    assert predict(engine, photos, "--boxes", boxes, "--jsonl", tmp_path / "p") == 0
    assert [len(line["boxes"]) for line in lines_of(tmp_path / "p")] == [1, 0, 0]
    assert "2 of 3 frames are not in" in caplog.text


def test_csv_gives_boxes_by_frame(engine, clip, tmp_path):
    boxes = write(tmp_path / "b.csv", "frame,file,x1,y1,x2,y2\n0,clip.avi,1,2,31,42\n2,clip.avi,5,6,35,46\n")
    assert predict(engine, clip, "--boxes", boxes, "--jsonl", tmp_path / "p") == 0
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
    "result without image": (
        "b.json",
        [{"bbox": [0, 0, 1, 1]}],
        r"\[0\]: key 'image_id' must be a whole number \(got None\)",
    ),
    "three numbers": ("b.json", [{"image_id": 1, "bbox": [0, 0, 1]}], r"'bbox' must be x, y, width, height"),
    "texts": ("b.json", [{"image_id": 1, "bbox": [0, 0, 1, "2"]}], r"'bbox' must be x, y, width, height"),
    "not a table": ("b.json", [7], "detections must be a list of tables"),
    "images a number": ("b.json", {"images": 5}, "key 'images' must be a list of tables"),
    "annotation not a table": ("b.json", {"images": [], "annotations": [7]}, "'annotations' must be a list of tables"),
    "score null": ("b.json", [{"image_id": 1, "bbox": [0, 0, 1, 1], "score": None}], r"'score' must be .* \(got None"),
    "unlisted image": (
        "b.json",
        {"images": [], "annotations": [{"iscrowd": 1}, {"image_id": 9, "bbox": [0, 0, 1, 1]}]},
        r"annotations\[1\] is of image 9, which 'images' does not list",
    ),
    "csv without header": (
        "b.csv",
        "0.png,1,2,3,4\n",
        "header line must name file, x1, y1, x2, y2 .* missing: file, x1",
    ),
    "csv with a word": ("b.csv", "file,x1,y1,x2,y2\n0.png,1,2,three,4\n", r"line 2: could not convert .*'three'"),
    "csv cut short": ("b.csv", "file,x1,y1,x2,y2\n0.png,1,2\n", "line 2: "),
    "csv cut short of its file": ("b.csv", "x1,y1,x2,y2,file\n1,2,3,4\n", "line 2: column 'file' is empty"),
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
}


@pytest.mark.parametrize(("name", "content", "message"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_row_that_is_no_box_is_left_out_and_counted(engine, photos, tmp_path, caplog, name, content, message):
    if not isinstance(content, str):
        content = [{"image_id": 1, "bbox": box, "score": 0.9, "category_id": 1} for box in content]
    boxes, lines = write(tmp_path / name, content), tmp_path / "p.jsonl"
    assert predict(engine, photos, "--boxes", boxes, "--jsonl", lines) == 1
    assert f"boxes file '{boxes}'" in caplog.text and message in caplog.text
    assert f"1 row of '{boxes}' left out: no box" in caplog.text
    assert [line["boxes"] for line in lines_of(lines)] == [[], [[1, 2, 31, 42]], []]


def test_bad_rows_of_other_images_are_nobodys_fault(engine, photos, tmp_path):
    boxes = write(tmp_path / "b.csv", "file,x1,y1,x2,y2\n1.png,5,5,5,9\n0.png,1,2,31,42\n")
    assert predict(engine, photos / "0.png", "--boxes", boxes) == 0


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
    sources = [Source(Path(path), "video" if "clip" in path else "image", claimed) for path in paths]
    ids = _ImageIds(sources, boxes)
    found = [ids.of(source, frame) for source in sources for frame in range(3 if source.kind == "video" else 1)]
    assert found == expected and len(set(found)) == len(found)


def test_ids_of_the_file_stay_although_a_picture_is_not_in_it(engine, photos, tmp_path):
    names = {"0.png": 501, "2.png": 777}
    images = [{"id": number, "file_name": name} for name, number in names.items()]
    annotations = [{"image_id": number, "bbox": [1, 2, 30, 40], "category_id": 1} for number in names.values()]
    boxes = write(tmp_path / "b.json", {"images": images, "annotations": annotations})
    assert predict(engine, photos, "--boxes", boxes, "--coco", tmp_path / "r.json") == 0
    assert {r["file_name"]: r["image_id"] for r in json.loads((tmp_path / "r.json").read_text())} == names


# --- sources ---------------------------------------------------------------------------------------------------------


def test_sources_are_listed_once_and_in_order(photos, clip, monkeypatch):
    monkeypatch.chdir(photos)
    found = sources_from([str(clip), "*.png", "1.png", str(photos / "0.png"), "."])
    assert [source.path.name for source in found[:4]] == ["clip.avi", "0.png", "1.png", "2.png"]
    assert found[0].kind == "video" and found[0].frames == 5 and found[0].fps == pytest.approx(10)


NO_SOURCES = {
    "nothing there": ("none.png", r"source '.*none\.png' does not exist"),
    "pattern without match": ("*.gif", "matches no file"),
    "unknown ending": ("notes.txt", r"unknown ending; known endings: \.avi"),
    "empty folder": ("empty", "holds no image and no video"),
}


@pytest.mark.parametrize(("name", "message"), NO_SOURCES.values(), ids=NO_SOURCES)
def test_sources_that_are_none_are_refused(tmp_path, name, message):
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        sources_from([str(tmp_path / name)])


def test_an_image_is_turned_as_its_exif_says(tmp_path):
    (tmp_path / "turned.jpg").write_bytes(turned_jpeg(noise(0)))
    assert read_image(tmp_path / "turned.jpg").shape == (120, 90, 3)
    assert read_stored_image(tmp_path / "turned.jpg").shape == (90, 120, 3)


def test_an_image_above_opencvs_limit_is_told(tmp_path):
    (tmp_path / "vast.png").write_bytes(vast_png())
    assert read_image(tmp_path / "vast.png").reason.startswith("it has more pixels than OpenCV takes")


def damage_photos(folder):
    data = (folder / "0.png").read_bytes()
    (folder / "0b-cut.png").write_bytes(data[:40])
    (folder / "1b-empty.jpg").write_bytes(b"")
    (folder / "1c-text.jpg").write_text("not a photograph")


def test_unreadable_images_are_counted_reported_and_passed_over(engine, photos, tmp_path, caplog):
    damage_photos(photos)
    out, lines = tmp_path / "out", tmp_path / "p.jsonl"
    assert predict(engine, photos, "--save", out, "--jsonl", lines) == 1
    assert [Path(line["source"]).name for line in lines_of(lines)] == ["0.png", "1.png", "2.png"]
    assert names_in(out) == ["0.png", "1.png", "2.png"]
    for name in ("0b-cut.png", "1b-empty.jpg' cannot be read: the file is empty", "1c-text.jpg"):
        assert name in caplog.text
    assert "3 of 6 sources could not be read" in caplog.text


def test_a_frame_that_no_estimator_takes_is_passed_over(engine, photos, tmp_path, caplog):
    cv2.imwrite(str(photos / "0b.png"), np.zeros((1, 20_000, 3), np.uint8))
    lines, coco = tmp_path / "p.jsonl", tmp_path / "r.json"
    assert predict(engine, photos, "--jsonl", lines, "--coco", coco, "--save", tmp_path / "out") == 1
    assert "0b.png' cannot be read: frame 0: frame must be at most 16384 pixels a side" in caplog.text
    assert "1 of 4 sources could not be read" in caplog.text
    assert len(lines_of(lines)) == len(json.loads(coco.read_text())) == 3
    assert names_in(tmp_path / "out") == ["0.png", "1.png", "2.png"]


def test_a_video_that_is_none_is_reported(engine, photos, tmp_path, caplog):
    (photos / "broken.mp4").write_bytes(b"no video")
    assert predict(engine, photos, "--jsonl", tmp_path / "p") == 1
    assert "broken.mp4' cannot be read: not a video that OpenCV opens" in caplog.text
    assert len(lines_of(tmp_path / "p")) == 3


def test_a_video_that_ends_early_is_reported(clip):
    (source,) = sources_from([str(clip)])
    *frames, last = frames_of(source.__class__(source.path, "video", frames=9, fps=10))
    assert len(frames) == 5 and last == Unreadable("the video ends after frame 5 of 9")


class Camera:
    """OpenCV's capture of a camera or a stream that gives four frames."""

    opened: list = []  # noqa: RUF012

    def __init__(self, address):
        self.opened.append(address)
        self.left = 4

    def isOpened(self):  # noqa: N802
        return True

    def read(self):
        self.left -= 1
        return (True, noise(self.left)) if self.left >= 0 else (False, None)

    def release(self):
        pass


LIVE = {  # source -> what OpenCV opens, its name in results, its file name
    "0": (0, "camera 0", "camera-0"),
    "/dev/video7": ("/dev/video7", "/dev/video7", "camera-7"),
    "rtsp://me:secret@cam.local/live/1": ("rtsp://me:secret@cam.local/live/1", "rtsp://cam.local/live/1", "1"),
    "http://cam.local": ("http://cam.local", "http://cam.local", "cam.local"),
}


@pytest.mark.parametrize("source", LIVE)
@pytest.mark.parametrize(("words", "frames"), [([], 4), (["--max-frames", "3"], 3)], ids=["all", "three"])
def test_cameras_and_streams_are_videos_without_an_end(engine, tmp_path, monkeypatch, source, words, frames):
    address, name, file_name = LIVE[source]
    monkeypatch.setattr(Camera, "opened", [])
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    assert predict(engine, source, *words, "--jsonl", tmp_path / "p", "--coco", tmp_path / "r.json") == 0
    assert Camera.opened == [address]
    assert [(line["source"], line["frame"]) for line in lines_of(tmp_path / "p")] == [(name, n) for n in range(frames)]
    assert all(line["track_ids"] is not None for line in lines_of(tmp_path / "p"))
    assert {record["file_name"] for record in json.loads((tmp_path / "r.json").read_text())} == {file_name}


def test_a_camera_that_gives_nothing_is_reported(engine, caplog):
    assert predict(engine, "79") == 1
    assert "'camera 79' cannot be read: camera 79 gives no frame; check that it is connected and free" in caplog.text


def test_a_file_whose_name_is_a_number_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0").write_text("")
    with pytest.raises(InputError, match="source '0' has an unknown ending"):
        sources_from(["0"])


def test_the_first_frames_of_a_clip(engine, clip, tmp_path):
    assert predict(engine, clip, "--max-frames", "2", "--jsonl", tmp_path / "p", "--save", tmp_path / "out") == 0
    assert len(lines_of(tmp_path / "p")) == 2 and names_in(tmp_path / "out") == ["clip.mp4"]


# --- nothing half-written --------------------------------------------------------------------------------------------


def test_sources_are_never_overwritten(engine, photos, capsys):
    before = {path: path.read_bytes() for path in photos.iterdir()}
    assert predict(engine, photos, "--save", photos) == 2
    assert "--save would overwrite the source" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in photos.iterdir()}


def test_two_sources_of_one_name_are_refused(engine, photos, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    cv2.imwrite(str(other / "1.png"), noise(9))
    assert predict(engine, photos, other, "--save", tmp_path / "out") == 2
    assert "would both be saved as" in capsys.readouterr().err and names_in(tmp_path / "out") == []


def test_ctrl_c_leaves_whole_pictures_and_nothing_half_written(engine, photos, tmp_path, monkeypatch, caplog):
    calls = []

    def interrupted(self, frame, *rest, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, frame, *rest, **options)

    real = PoseEstimator.__call__
    monkeypatch.setattr(PoseEstimator, "__call__", interrupted)
    out = tmp_path / "out"
    assert predict(engine, photos, "--save", out, "--jsonl", out / "p.jsonl", "--coco", out / "r.json") == 1
    assert f"interrupted after 1 frame; lost: 1 COCO result for '{out / 'r.json'}'" in caplog.text
    assert f"'{out / 'p.jsonl.part'}' keeps 1 finished line of the run that ended early" in caplog.text
    assert names_in(out) == ["0.png", "p.jsonl.part"] and len(lines_of(out / "p.jsonl.part")) == 1


def test_ctrl_c_in_a_video_leaves_no_video(engine, clip, tmp_path, monkeypatch, caplog):
    real = outputs.VideoFile.write

    def interrupted(self, picture):
        real(self, picture)
        if self._count == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(outputs.VideoFile, "write", interrupted)
    assert predict(engine, clip, "--save", tmp_path / "out") == 1
    assert f"interrupted after 3 frames; lost: the unfinished '{tmp_path / 'out' / 'clip.mp4'}'" in caplog.text
    assert names_in(tmp_path / "out") == []


class FullDisk:
    """`Path.open('w')` and `write_bytes` on a disk that takes 64 bytes more."""

    def __init__(self, monkeypatch):
        real = Path.open

        def open_full(path, mode="r", *rest, **options):
            file = real(path, mode, *rest, **options)
            if "w" in mode:
                file.write = self.refuse
            return file

        monkeypatch.setattr(Path, "open", open_full)

    @staticmethod
    def refuse(_):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("what", ["--save", "--jsonl", "--coco"])
def test_a_full_disk_leaves_nothing(engine, photos, tmp_path, monkeypatch, capsys, what):
    target = tmp_path / "out"
    real_bytes = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda path, data: real_bytes(path, data[:64]) and FullDisk.refuse(data))
    monkeypatch.setattr(Path, "write_text", lambda *_, **__: FullDisk.refuse(""))
    FullDisk(monkeypatch)
    assert predict(engine, photos, what, target if what == "--save" else target / "file") == 1
    assert "cannot be written (No space left on device); make room" in capsys.readouterr().err
    assert names_in(target) == []


def test_a_picture_of_an_unknown_ending_is_refused(tmp_path):
    with pytest.raises(outputs.OutputError, match=r"a\.xyz' cannot be encoded .*choose an ending such as \.jpg"):
        outputs.write_picture(tmp_path / "a.xyz", noise(0))
    assert names_in(tmp_path) == []


def test_a_video_that_lost_frames_is_no_video(tmp_path):
    with (
        pytest.raises(outputs.OutputError, match="only 2 of 3 frames arrived"),
        outputs.VideoFile(tmp_path / "v.mp4", 25) as video,
    ):
        for index in range(2):
            video.write(noise(index))
        video._count += 1  # as if the disk had swallowed one
    assert names_in(tmp_path) == []


def test_an_old_result_outlives_a_failed_run(engine, photos, tmp_path):
    lines = write(tmp_path / "p.jsonl", "old\n")
    (tmp_path / "file").write_text("")
    assert predict(engine, photos, "--save", tmp_path / "file", "--jsonl", lines) == 1
    assert lines.read_text() == "old\n" and len(lines_of(tmp_path / "p.jsonl.part")) == 1


OVERWRITING = {  # words, of photos with a boxes file among them -> message
    "a source": (["--coco", "1.png"], "--coco would overwrite the input '"),
    "the boxes": (["--boxes", "b.csv", "--jsonl", "b.csv"], "--jsonl would overwrite the input '"),
    "one for both": (["--jsonl", "same", "--coco", "same"], "--coco and --jsonl would both be written to '"),
    "the unfinished lines": (
        ["--jsonl", "p", "--coco", "p.part"],
        "--coco and --jsonl, unfinished, would both be written",
    ),
    "a saved picture": (["--save", "out", "--coco", "out/1.png"], "and --coco would both be written to '"),
}


@pytest.mark.parametrize(("words", "message"), OVERWRITING.values(), ids=OVERWRITING)
def test_results_replace_nothing_that_is_read_or_written(engine, photos, monkeypatch, capsys, words, message):
    write(photos / "b.csv", CSV)
    monkeypatch.chdir(photos)
    before = {path: path.read_bytes() for path in photos.iterdir()}
    assert predict(engine, photos, *words) == 2
    assert message in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in photos.iterdir()}


def test_results_do_not_replace_the_engine(engine, photos, capsys):
    assert predict(engine, photos, "--coco", engine / "engine.json") == 2
    assert "--coco would overwrite the input" in capsys.readouterr().err


def test_many_sources_are_not_compared_with_each_other(tmp_path, monkeypatch):
    sources = [Source(tmp_path / f"{number}.png", "image") for number in range(500)]
    compared = []
    real = PurePath.__eq__
    monkeypatch.setattr(PurePath, "__eq__", lambda *paths: (compared.append(1), real(*paths))[1])
    assert len(_pictures_of(sources, tmp_path / "out")) == 500
    assert len(compared) < 5 * 500


USAGE = {  # words -> exit status, message
    "boxes and detector": (
        ["--boxes", "b.csv", "--detector", "d.onnx"],
        2,
        "--boxes and --detector exclude each other",
    ),
    "detect seldom, pictures": (
        ["--detector", "d.onnx", "--detect-every", "3"],
        2,
        "--detect-every 3 needs a video to follow persons in, and no --no-track; leave it out",
    ),
    "detect seldom, no detector": (["--detect-every", "3"], 2, "--detect-every 3 needs a --detector; give one"),
    "detect never": (["--detect-every", "0"], 2, "--detect-every must be at least 1 (got 0)"),
    "no frames": (["--max-frames", "0"], 2, "--max-frames must be at least 1 (got 0)"),
    "missing detector": (["--detector", "none.onnx"], 1, "detector 'none.onnx' does not exist"),
    "another device": (["--device", "gpu"], 1, "device must be 'auto', 'cpu', 'cuda' or 'cuda:N'"),
}


@pytest.mark.parametrize(("words", "status", "message"), USAGE.values(), ids=USAGE)
def test_options_that_cannot_be_are_told_on_stderr(engine, photos, capsys, words, status, message):
    assert predict(engine, photos, *words) == status
    captured = capsys.readouterr()
    assert message in captured.err and captured.out == ""


def test_a_verb_without_its_words_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["predict"])
    assert ended.value.code == 2
