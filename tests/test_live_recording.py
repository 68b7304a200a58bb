"""Recordings of the live page: clips and their lines, sizes that change, slow and full disks."""

import json
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="the extra 'live' is not installed")
pytest.importorskip("starlette", reason="the extra 'live' is not installed")
pytest.importorskip("websockets.sync.client", reason="the extra 'live' is not installed")
cv2 = pytest.importorskip("cv2")

from sdk.errors import OutputError  # noqa: E402
from sdk.files import whole_file  # noqa: E402
from sdk.live.recording import WAITING, Recorder  # noqa: E402
from sdk.media.sinks import VideoFile  # noqa: E402
from sdk.media.videos import SourceFrame  # noqa: E402
from sdk.people.cameras import CameraPoses  # noqa: E402
from sdk.skeletons import CROWDPOSE14  # noqa: E402
from tests.support.live import Camera, poses_of, served  # noqa: E402
from tests.support.threads import wait_for  # noqa: E402
from tests.support.viewer import Viewer  # noqa: E402


def test_a_recording_is_a_clip_and_its_lines(tmp_path, monkeypatch):
    monkeypatch.setattr("sdk.live.recording.WAITING", 0)  # without a limit, so that a busy machine leaves none out
    folder = tmp_path / "kept"
    camera = Camera(fps=60)
    with served(camera.watch(folder)) as page, Viewer(page) as one:
        one.say(do="record")
        told = one.text("statistics", lambda told: told["recording"]["frames"] >= 5)
        assert told["recording"]["on"] and not list(folder.glob("[!.]*"))
        one.say(do="finish")
        told = one.text("state", lambda told: told["recording"]["files"])["recording"]
    clip, lines = (folder / name.rsplit("/", 1)[-1] for name in told["files"])
    written = [json.loads(line) for line in lines.read_text().splitlines()]
    assert sorted(folder.iterdir()) == sorted([clip, lines])
    assert len(written) == told["frames"] == frames_in(clip) and told["left_out"] == 0
    assert [line["frame"] for line in written] == list(range(written[0]["frame"], written[0]["frame"] + len(written)))
    assert np.asarray(written[0]["keypoints"]).shape == (1, 14, 2)


def frames_in(path):
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.read()[0]:
        count += 1
    return count


def result(number, size_hw=(48, 64), captured_s=None, camera=0):
    picture = np.full((*size_hw, 3), 10 * number, np.uint8)
    taken = SourceFrame(picture, number, 0.0, captured_s=number / 30 if captured_s is None else captured_s)
    return CameraPoses(camera, "ab"[camera], taken, poses_of(np.ones((1, 14, 2)), CROWDPOSE14))


def test_a_clip_ends_where_the_size_changes_or_it_is_long(tmp_path):
    recorder = Recorder(tmp_path, ["a"])
    recorder.start()
    sizes = [(48, 64)] * 3 + [(32, 32)] * 2
    for number, size_hw in enumerate(sizes):
        recorder.offer(result(number, size_hw))
    recorder.offer(result(9, (32, 32), captured_s=700.0))
    recorder.finish()
    clips = sorted(tmp_path.glob("*.mp4"))
    assert sorted(frames_in(clip) for clip in clips) == [1, 2, 3]
    assert sorted(len(clip.with_suffix(".jsonl").read_text().splitlines()) for clip in clips) == [1, 2, 3]


def test_a_recording_that_cannot_be_written_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    def full(self, picture, time_ms):
        raise OutputError("'clip.mp4' cannot be written (No space left on device); make room")

    states = []
    recorder = Recorder(tmp_path / "kept", ["a"], lambda: states.append(recorder.state()))
    recorder.start()
    with monkeypatch.context() as patched:
        patched.setattr("sdk.media.sinks.VideoFile.write", full)
        recorder.offer(result(0))
        wait_for(lambda: len(states) == 2)
    assert "No space left" in states[-1]["error"] and not states[-1]["on"]
    assert list((tmp_path / "kept").iterdir()) == []
    recorder.start()  # and again, once there is room
    recorder.offer(result(1))
    recorder.finish()
    assert recorder.state()["error"] is None and len(recorder.state()["files"]) == 2


def test_what_a_slow_disk_cannot_take_is_left_out_of_both_and_told(tmp_path, monkeypatch):
    recorder, written, begun, goes_on = Recorder(tmp_path, ["a"]), VideoFile.write, threading.Event(), threading.Event()

    def slow(self, picture, time_ms):
        begun.set()
        goes_on.wait()
        written(self, picture, time_ms)

    monkeypatch.setattr("sdk.media.sinks.VideoFile.write", slow)
    recorder.start()
    recorder.offer(result(0))
    begun.wait()
    for number in range(1, WAITING + 4):
        recorder.offer(result(number))
    goes_on.set()
    recorder.finish()
    clip, lines = map(Path, recorder.state()["files"])
    numbers = [json.loads(line)["frame"] for line in lines.read_text().splitlines()]
    assert numbers == list(range(WAITING + 1)) and frames_in(clip) == len(numbers)
    assert recorder.state()["left_out"] == 3


@contextmanager
def lines_on_a_full_disk(path):
    """They wait in memory until their file is closed, which then fails."""
    with whole_file(path):
        yield Path("/dev/full")


def test_where_the_disk_is_full_at_the_giving_up_too_all_cameras_are_given_up(tmp_path, monkeypatch):
    def full(self, picture, time_ms):
        if picture[0, 0, 0] == 20:
            raise OutputError("'clip.mp4' cannot be written (No space left on device); make room")
        written(self, picture, time_ms)

    written, states = VideoFile.write, []
    recorder = Recorder(tmp_path / "kept", ["a", "b"], lambda: states.append(recorder.state()))
    recorder.start()
    with monkeypatch.context() as patched:
        patched.setattr("sdk.live.recording.whole_file", lines_on_a_full_disk)
        patched.setattr("sdk.media.sinks.VideoFile.write", full)
        for number, camera in enumerate((0, 1, 0)):
            recorder.offer(result(number, camera=camera))
        wait_for(lambda: len(states) == 2)
    assert "'clip.mp4' cannot be written" in states[1]["error"] and states[1]["files"] == [] and not states[1]["on"]
    assert list((tmp_path / "kept").iterdir()) == []
    recorder.finish()
    assert recorder.state()["files"] == []
    recorder.start()
    recorder.offer(result(1))
    recorder.finish()
    assert recorder.state()["error"] is None and recorder.state()["frames"] == 1 and len(recorder.state()["files"]) == 2


def test_a_place_that_cannot_be_written_is_told_to_who_asked(tmp_path):
    (tmp_path / "file").touch()
    with served(Camera().watch(tmp_path / "file" / "below")) as page, Viewer(page) as one:
        one.say(do="record")
        assert "cannot be written" in one.text("notice")["words"]
