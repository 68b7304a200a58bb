"""Videos: numbers and times of their frames, damage, and how they end; and that a saved video keeps true time."""

import http.server
import struct
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

from sdk.media import sinks, videos
from sdk.media.containers import frames_all_shown, missing_bytes
from sdk.media.feeds import FeedError, Grab
from sdk.media.mp4_times import set_times
from sdk.media.opening import open_source
from sdk.media.sinks import VideoFile
from sdk.media.sources import frames_of, sources_from
from sdk.media.videos import Damaged, SourceFrame, Unreadable
from tests.support.predict import lines_of, noise, predict

cv2 = pytest.importorskip("cv2")
FRAMES, FPS = 30, 25


def write_video(path, codec="mp4v", frames=FRAMES):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), FPS, (120, 90))
    for index in range(frames):
        writer.write(noise(index))
    writer.release()
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of an MP4."""
    return write_video(tmp_path_factory.mktemp("video") / "walk.mp4").read_bytes()


def items_of(path):
    (source,) = sources_from([str(path)])
    return list(frames_of(source))


def numbers_of(items):
    return [item.number for item in items if isinstance(item, SourceFrame)]


def damaged(data, share, count):
    """`data` of a video with `count` bytes overwritten at `share` of its frames."""
    first, last = data.find(b"mdat") + 4, data.find(b"moov") - 4
    begin = int(first + share * (last - first))
    end = min(begin + count, last)
    return data[:begin] + b"\x55" * (end - begin) + data[end:]


def test_frames_have_numbers_and_times(tmp_path, whole):
    (tmp_path / "a.mp4").write_bytes(whole)
    items = items_of(tmp_path / "a.mp4")
    assert numbers_of(items) == list(range(FRAMES)) and len(items) == FRAMES
    assert [item.time_ms for item in items] == pytest.approx([40 * number for number in range(FRAMES)], abs=1)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9], ids=["early", "late", "at the end"])
def test_damaged_frames_are_counted_and_those_after_keep_their_numbers(tmp_path, whole, share):
    (tmp_path / "a.mp4").write_bytes(damaged(whole, share, 12_000))
    items = items_of(tmp_path / "a.mp4")
    (lost,) = [item for item in items if isinstance(item, Damaged)]
    gone = list(range(lost.first, lost.first + lost.count))
    assert gone and sorted(numbers_of(items) + gone) == list(range(FRAMES))
    assert not any(isinstance(item, Unreadable) for item in items)
    for item in items:
        if isinstance(item, SourceFrame):
            assert item.time_ms == pytest.approx(40 * item.number, abs=1)


@pytest.mark.parametrize("lost", [Damaged(14, 1), Damaged(14, 3)], ids=["one", "three"])
def test_damage_says_which_frames(lost):
    assert str(lost) == ("frame 14 is damaged" if lost.count == 1 else "frames 14 to 16 are damaged")


@pytest.mark.native
def test_prediction_passes_damaged_frames_over_and_says_so(small_engine, tmp_path, whole, caplog):
    (tmp_path / "a.mp4").write_bytes(damaged(whole, 0.5, 9000))
    assert predict(small_engine, tmp_path / "a.mp4", "--jsonl", tmp_path / "p", "--save", tmp_path / "out") == 1
    lines = lines_of(tmp_path / "p")
    assert lines[-1]["frame"] == FRAMES - 1 and len(lines) < FRAMES
    assert "damaged, passed over" in caplog.text
    assert f"{FRAMES - len(lines)} frames passed over: damaged" in caplog.text
    saved = items_of(tmp_path / "out" / "a.mp4")
    assert [item.time_ms for item in saved] == pytest.approx([line["time_ms"] for line in lines], abs=1)


CUT = [("avi", "MJPG"), ("avi", "mp4v"), ("mkv", "mp4v")]


@pytest.mark.parametrize(("ending", "codec"), CUT, ids=lambda value: value)
def test_a_file_that_was_cut_off_breaks_off(tmp_path, ending, codec):
    data = write_video(tmp_path / f"whole.{ending}", codec).read_bytes()
    path = tmp_path / f"cut.{ending}"
    path.write_bytes(data[: len(data) // 2])
    *frames, last = items_of(path)
    assert 0 < len(frames) < FRAMES and missing_bytes(path) == len(data) - len(data) // 2
    assert last.reason.startswith(f"the video breaks off after frame {len(frames)} of {FRAMES}: the file is ")
    assert missing_bytes(tmp_path / f"whole.{ending}") == 0


class Breaking:
    """A feed that gives some frames, and then has a fault."""

    fps = 25.0

    def __init__(self, frames, claimed):
        self.left, self.claimed = frames, claimed

    def read(self):
        if not self.left:
            raise FeedError("the decoder has a fault")
        self.left -= 1
        return Grab(noise(self.left))

    def close(self):
        pass


@pytest.mark.parametrize("claimed", [0, 4, FRAMES], ids=["counts none", "counts those", "counts more"])
def test_a_decoder_that_fails_in_mid_file_is_no_clean_end(tmp_path, monkeypatch, claimed):
    path = write_video(tmp_path / "whole.avi", "MJPG")
    monkeypatch.setattr(videos, "open_feed", lambda source, how: Breaking(4, claimed))
    *frames, last = items_of(path)
    assert numbers_of(frames) == [0, 1, 2, 3] and len(frames) == 4
    assert last == Unreadable("the video breaks off after frame 4: the decoder has a fault")


def boxes_grown(data, box, by):
    """`data` with the lengths of all boxes that hold the box `box` grown by `by`."""
    data, at = bytearray(data), data.find(box)
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts"):
        begin = data.find(kind) - 4
        (size,) = struct.unpack(">I", data[begin : begin + 4])
        if begin < at < begin + size:
            data[begin : begin + 4] = struct.pack(">I", size + by)
    return data


def uneven(data):
    """A video of 15 frames of 40 ms, then 15 of 160 ms, as telephones make them."""
    at = data.find(b"stts")
    data = boxes_grown(data, b"stts", 8)
    data[at - 4 : at + 20] = struct.pack(">I4s5I", 32, b"stts", 0, 2, 15, 512, 15) + struct.pack(">I", 2048) + b""
    return bytes(data)


def tables_first(data):
    """The MP4 with its tables before its frames, as servers send them."""
    begin, first = data.find(b"moov") - 4, data.find(b"mdat") - 4
    moov = bytearray(data[begin:])
    at = moov.find(b"stco") + 8
    (count,) = struct.unpack(">I", moov[at : at + 4])
    places = struct.unpack(f">{count}I", moov[at + 4 : at + 4 + 4 * count])
    moov[at + 4 : at + 4 + 4 * count] = struct.pack(f">{count}I", *(place + len(moov) for place in places))
    return data[:first] + bytes(moov) + data[first:begin]


def test_a_cut_mp4_whose_tables_come_first_breaks_off(tmp_path, whole):
    data = tables_first(whole)
    (tmp_path / "a.mp4").write_bytes(data)
    assert numbers_of(items_of(tmp_path / "a.mp4")) == list(range(FRAMES))
    (tmp_path / "a.mp4").write_bytes(data[: len(data) * 2 // 3])
    *frames, last = items_of(tmp_path / "a.mp4")
    assert isinstance(last, Unreadable) and f"breaks off after frame {len(frames)} of {FRAMES}" in last.reason


def test_an_edit_list_that_hides_frames_is_no_damage(tmp_path, whole, caplog):
    data = bytearray(whole)
    at = data.find(b"elst") + 4
    data[at + 8 : at + 16] = struct.pack(">2I", 800, 10 * 512)  # 800 ms from frame 10 on
    (tmp_path / "a.mp4").write_bytes(data)
    with caplog.at_level("INFO", "sdk"):
        items = items_of(tmp_path / "a.mp4")
    assert all(isinstance(item, SourceFrame) for item in items) and not frames_all_shown(tmp_path / "a.mp4")
    assert len(items) == FRAMES or f"shows {len(items)} frames; its header counts {FRAMES}" in caplog.text


@contextmanager
def serving(answer):
    """The address of a server on this machine that answers by `answer(handler)`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answer(self)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/walk.mp4"
    finally:
        server.shutdown()
        server.server_close()


def sends(data, share, stall_s=0.0):
    """An answer of the first `share` of `data`, which then stalls, and ends."""

    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[: int(share * len(data))])
        handler.wfile.flush()
        time.sleep(stall_s)

    return answer


def test_a_stream_that_is_whole_ends_cleanly(whole):
    with serving(sends(tables_first(whole), 1.0)) as address:
        items = items_of(address)
    assert numbers_of(items) == list(range(FRAMES)) and len(items) == FRAMES


@pytest.mark.native
def test_a_stream_that_breaks_off_is_no_success(small_engine, tmp_path, whole, caplog):
    with serving(sends(tables_first(whole), 0.6)) as address:
        assert predict(small_engine, address, "--jsonl", tmp_path / "p") == 1
    found = len(lines_of(tmp_path / "p"))
    assert 5 < found < FRAMES
    assert f"cannot be read: the stream breaks off after frame {found} of {FRAMES}; check the connection" in caplog.text


def test_a_stream_that_stalls_times_out(whole):
    with (
        serving(sends(tables_first(whole), 0.6, stall_s=4.0)) as address,
        open_source(address, read_timeout_s=1.0, open_timeout_s=1.0) as frames,
    ):
        *given, last = frames.items()
    assert len(given) > 5 and last.reason == f"time-out: nothing more came after frame {len(given) - 1}, for 1 s"


def test_a_video_of_uneven_times_is_saved_with_them(tmp_path):
    times = [*range(0, 600, 40), *range(600, 3000, 160)]
    with VideoFile(tmp_path / "a.mp4", 25) as video:
        for number, time_ms in enumerate(times):
            video.write(noise(number), 100.0 + time_ms)
    found = items_of(tmp_path / "a.mp4")
    assert [item.time_ms for item in found] == pytest.approx(times, abs=1) and len(found) == len(times)
    for number in (0, 17, 29):
        assert np.abs(found[number].picture.astype(int) - noise(number)).mean() < 12  # MPEG-4 is lossy


@pytest.mark.parametrize("fps", [0.0, float("nan"), float("inf"), -5.0, 1e-9, 90_000.0, 1e6, 1e300], ids=str)
def test_a_strange_frame_rate_is_taken_as_the_usual_one(tmp_path, fps):
    with VideoFile(tmp_path / "a.mp4", fps) as video:
        for number in range(3):
            video.write(noise(number))
    assert [item.time_ms for item in items_of(tmp_path / "a.mp4")] == pytest.approx([0, 40, 80], abs=1)


@pytest.mark.parametrize("fps", [0.1, 7.5, 23.976, 59.94, 240.0, 1000.0], ids=str)
def test_every_usual_rate_is_kept(tmp_path, fps):
    with VideoFile(tmp_path / "a.mp4", fps) as video:
        for number in range(3):
            video.write(noise(number))
    assert [item.time_ms for item in items_of(tmp_path / "a.mp4")] == pytest.approx([0, 1e3 / fps, 2e3 / fps], abs=1)


OTHERS = {
    "nothing": b"",
    "text": b"not a video at all, but long enough to look into",
    "a RIFF of unknown length": b"RIFF\xff\xff\xff\xffAVI ",
    "a Matroska of unknown length": b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\x01" + b"\xff" * 7,
    "half a Matroska header": b"\x1a\x45\xdf\xa3",
    "an MP4 to the end of the file": struct.pack(">I4sI4s", 8, b"ftyp", 0, b"mdat") + bytes(20),
}


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS)
def test_a_container_that_tells_nothing_misses_nothing(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    assert missing_bytes(tmp_path / "a") == 0 and not frames_all_shown(tmp_path / "a")


LAYOUTS = {
    "nothing": lambda data: b"",
    "text": lambda data: b"not a video at all, but long enough to look into",
    "tables first": tables_first,
    "cut off": lambda data: data[:-10],
    "something behind": lambda data: data + struct.pack(">I4s", 8, b"free"),
    "no scale": lambda data: data.replace(b"mdhd", b"mdhx"),
    "frames in another order": lambda data: data.replace(b"stsz", b"ctts"),
}


@pytest.mark.parametrize("change", LAYOUTS.values(), ids=LAYOUTS)
def test_a_file_laid_out_otherwise_keeps_its_times(tmp_path, whole, change):
    path = tmp_path / "a.mp4"
    path.write_bytes(change(whole))
    assert not set_times(path, [0.0, 40.0], 40.0) and path.read_bytes() == change(whole)


def test_a_video_whose_times_cannot_be_set_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sinks, "set_times", lambda *_, **__: False)
    with VideoFile(tmp_path / "a.mp4", 25, codec="mp4v") as video:
        for number, time_ms in enumerate((0.0, 40.0, 500.0)):
            video.write(noise(number), time_ms)
    assert "a.mp4' shows its frames in even steps" in caplog.text and len(items_of(tmp_path / "a.mp4")) == 3
