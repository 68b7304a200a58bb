"""The sources of `sdk predict`: pictures, folders, patterns, videos, cameras, and those that cannot be read."""

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from sdk.errors import InputError
from sdk.media.live import LiveFrames
from sdk.media.sources import read_image, read_stored_image, sources_from
from tests.support.pictures import turned_jpeg, vast_png
from tests.support.predict import lines_of, names_in, noise, predict

pytestmark = pytest.mark.native
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
cv2 = pytest.importorskip("cv2")


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
    assert read_image(tmp_path / "vast.png").reason.startswith("it must be at most 16384 pixels a side")


def damage_photos(folder):
    data = (folder / "0.png").read_bytes()
    (folder / "0b-cut.png").write_bytes(data[:40])
    (folder / "1b-empty.jpg").write_bytes(b"")
    (folder / "1c-text.jpg").write_text("not a photograph")


def test_unreadable_images_are_counted_reported_and_passed_over(small_engine, photos, tmp_path, caplog):
    damage_photos(photos)
    out, lines = tmp_path / "out", tmp_path / "p.jsonl"
    assert predict(small_engine, photos, "--save", out, "--jsonl", lines) == 1
    assert [Path(line["source"]).name for line in lines_of(lines)] == ["0.png", "1.png", "2.png"]
    assert names_in(out) == ["0.png", "1.png", "2.png"]
    for name in ("0b-cut.png", "1b-empty.jpg' cannot be read: the file is empty", "1c-text.jpg"):
        assert name in caplog.text
    assert "3 of 6 sources could not be read" in caplog.text


def test_a_frame_that_no_estimator_takes_is_passed_over(small_engine, photos, tmp_path, caplog):
    cv2.imwrite(str(photos / "0b.png"), np.zeros((1, 20_000, 3), np.uint8))
    lines, coco = tmp_path / "p.jsonl", tmp_path / "r.json"
    assert predict(small_engine, photos, "--jsonl", lines, "--coco", coco, "--save", tmp_path / "out") == 1
    assert "0b.png' cannot be read: it must be at most 16384 pixels a side (its header says 20000 x 1)" in caplog.text
    assert "1 of 4 sources could not be read" in caplog.text
    assert len(lines_of(lines)) == len(json.loads(coco.read_text())) == 3
    assert names_in(tmp_path / "out") == ["0.png", "1.png", "2.png"]


def test_a_video_that_is_none_is_reported(small_engine, photos, tmp_path, caplog):
    (photos / "broken.mp4").write_bytes(b"no video")
    assert predict(small_engine, photos, "--jsonl", tmp_path / "p") == 1
    assert "broken.mp4' cannot be read: not a video that can be opened" in caplog.text
    assert len(lines_of(tmp_path / "p")) == 3


class Camera:
    """OpenCV's capture of a camera or a stream that gives four frames, each when one is waited for."""

    opened: list = []  # noqa: RUF012
    waited_for: threading.Semaphore

    def __init__(self, address, *_):
        self.opened.append(address)
        self.left = 4

    def get(self, _):
        return 0.0

    def isOpened(self):  # noqa: N802
        return True

    def read(self):
        self.left -= 1
        if self.left >= 0:
            self.waited_for.acquire()
            time.sleep(0.02)  # frames that come closer together may be a backlog
        return (True, noise(self.left)) if self.left >= 0 else (False, None)

    def release(self):
        pass


def give_when_waited_for(monkeypatch):
    """A frame each time that the reader waits for one; what it leaves is not held up."""
    waited_for, take, leave = threading.Semaphore(0), LiveFrames._take, LiveFrames._leave

    def left(frames):
        if frames._opening is not None:
            waited_for.release(4)
        return leave(frames)

    monkeypatch.setattr(Camera, "waited_for", waited_for, raising=False)
    monkeypatch.setattr(LiveFrames, "_take", lambda *each: waited_for.release() or take(*each))
    monkeypatch.setattr(LiveFrames, "_leave", left)


LIVE = {  # source -> what OpenCV opens, its name in results, its file name
    "0": (0, "camera 0", "camera-0"),
    "/dev/video7": ("/dev/video7", "/dev/video7", "camera-7"),
    "rtsp://me:secret@cam.local/live/1": ("rtsp://me:secret@cam.local/live/1", "rtsp://cam.local/live/1", "1"),
    "http://cam.local": ("http://cam.local", "http://cam.local", "cam.local"),
}


@pytest.mark.parametrize("source", LIVE)
@pytest.mark.parametrize(("words", "frames"), [([], 4), (["--max-frames", "3"], 3)], ids=["all", "three"])
def test_cameras_and_streams_are_videos_without_an_end(
    small_engine, tmp_path, monkeypatch, source, words, frames, caplog
):
    address, name, file_name = LIVE[source]
    monkeypatch.setattr(Camera, "opened", [])
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    monkeypatch.setattr("sdk.media.cv_feed.call", lambda *_: None)  # no host of this name is there
    give_when_waited_for(monkeypatch)
    monkeypatch.setattr("sdk.media.freshness.FLUSH_S", 0.0)  # none of the four lay waiting
    how = "--backend", "opencv", "--reconnect", "no", "--jsonl", tmp_path / "p", "--coco", tmp_path / "r.json"
    assert predict(small_engine, source, *words, *how) == (0 if words else 1)
    assert Camera.opened == [address]
    if not words:
        assert f"'{name}' cannot be read: it gives no more frames" in caplog.text
    assert "secret" not in caplog.text
    assert [(line["source"], line["frame"]) for line in lines_of(tmp_path / "p")] == [(name, n) for n in range(frames)]
    assert all(line["track_ids"] is not None for line in lines_of(tmp_path / "p"))
    assert {record["file_name"] for record in json.loads((tmp_path / "r.json").read_text())} == {file_name}


def test_a_camera_that_gives_nothing_is_reported(small_engine, caplog):
    assert predict(small_engine, "79") == 1
    told = "camera 79 gives no frame (it cannot be opened); check that it is connected and free, or name a file"
    assert f"'camera 79' cannot be read: {told}" in caplog.text


def test_a_file_whose_name_is_a_number_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0").write_text("")
    with pytest.raises(InputError, match="source '0' has an unknown ending"):
        sources_from(["0"])


def test_the_first_frames_of_a_clip(small_engine, clip, tmp_path):
    assert predict(small_engine, clip, "--max-frames", "2", "--jsonl", tmp_path / "p", "--save", tmp_path / "out") == 0
    assert len(lines_of(tmp_path / "p")) == 2 and names_in(tmp_path / "out") == ["clip.mp4"]
