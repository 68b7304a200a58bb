"""PyAV beside OpenCV: equal pictures, and what OpenCV falls short of: sizes that change, damage that is told."""

import struct
from itertools import pairwise

import numpy as np
import pytest

from sdk.errors import MissingDependencyError, SourceError
from sdk.media import backends
from sdk.media.opening import open_source
from sdk.media.videos import Damaged
from tests.support.predict import noise, predict

cv2 = pytest.importorskip("cv2")
av = pytest.importorskip("av", reason="PyAV is not installed (pip install '.[av]')")


def write_mp4(path, turned=False):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (120, 90))
    for index in range(12):
        writer.write(noise(index))
    writer.release()
    if turned:  # the matrix of its track: a quarter turn, as telephones write it
        data = bytearray(path.read_bytes())
        at = data.find(b"tkhd") + 4 + 40
        one = 1 << 16
        data[at : at + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 90 * one, 0, 1 << 30)
        path.write_bytes(bytes(data))
    return path


def encoded(path, size_hw, frames=10):
    """A transport stream, which may be cut and joined anywhere."""
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.height, stream.width = size_hw
        stream.pix_fmt = "yuv420p"
        for index in range(frames):
            picture = np.full((*size_hw, 3), 20 * index, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path.read_bytes()


@pytest.mark.parametrize("turned", [False, True], ids=["upright", "turned"])
def test_pictures_numbers_and_times_are_opencvs(tmp_path, turned):
    path = write_mp4(tmp_path / "a.mp4", turned)
    found = {backend: list(open_source(path, backend=backend)) for backend in ("opencv", "av")}
    assert len(found["av"]) == 12 and found["av"][0].picture.shape == ((120, 90, 3) if turned else (90, 120, 3))
    for ours, theirs in zip(found["av"], found["opencv"], strict=True):
        np.testing.assert_array_equal(ours.picture, theirs.picture)
        assert (ours.number, ours.time_ms) == (theirs.number, pytest.approx(theirs.time_ms, abs=0.01))


def test_a_recording_whose_size_changes_keeps_each_size(tmp_path):
    data = encoded(tmp_path / "a.ts", (48, 64)) + encoded(tmp_path / "b.ts", (96, 80))
    (tmp_path / "ab.ts").write_bytes(data)
    with open_source(tmp_path / "ab.ts") as frames:
        found = [item for item in frames.items() if not isinstance(item, Damaged)]
    assert {frame.picture.shape[:2] for frame in found} == {(48, 64), (96, 80)} and len(found) >= 18
    times = [frame.time_ms for frame in found]
    assert all(later > earlier for earlier, later in pairwise(times))


@pytest.mark.native
def test_a_size_that_changes_begins_another_saved_video(small_engine, tmp_path):
    data = encoded(tmp_path / "a.ts", (48, 64)) + encoded(tmp_path / "b.ts", (96, 80))
    (tmp_path / "ab.ts").write_bytes(data)
    predict(small_engine, tmp_path / "ab.ts", "--save", tmp_path / "out")
    sizes = {path.name: next(open_source(path)).picture.shape[:2] for path in (tmp_path / "out").iterdir()}
    assert sizes == {"ab.mp4": (48, 64), "ab-2.mp4": (96, 80)}


@pytest.mark.parametrize("backend", ["opencv", "av"])
@pytest.mark.parametrize("where", ["rtsp://me:secret@127.0.0.1:9/1", "http://me:secret@127.0.0.1:9/live?token=secret"])
def test_no_secret_is_told(where, backend, caplog, capfd):
    with pytest.raises(SourceError) as told, open_source(where, backend=backend) as frames:
        next(frames)
    assert "gives no frame" in str(told.value)
    assert "secret" not in str(told.value) + caplog.text + "".join(capfd.readouterr())


def test_hardware_that_is_not_there_is_told(tmp_path):
    path = write_mp4(tmp_path / "a.mp4")
    with pytest.raises(SourceError, match="cannot be read"), open_source(path, hwaccel="nosuch") as frames:
        next(frames)


def test_without_pyav_opencv_reads_and_pyav_asked_for_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(backends, "_has_av", lambda: False)
    path = write_mp4(tmp_path / "a.mp4")
    assert len(list(open_source(path))) == 12
    with pytest.raises(MissingDependencyError, match=r"need PyAV: pip install 'simcc-edge-sdk\[av\]'"):
        list(open_source(path, backend="av"))
