"""Frames from pipes: raw ones in every form, YUV4MPEG2, half frames, and GStreamer's pipelines in a process beside."""

import os
import shutil
import signal
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from sdk.errors import InputError, SourceError, UsageError
from sdk.media.addresses import address_of, file_name_of, without_secrets
from sdk.media.cv_feed import AT_ONCE, OPTIONS, OpenCvFeed, opencv_told
from sdk.media.feeds import FeedEndedError, FeedError, How
from sdk.media.formats import RawFormat, bgr_from_i420, camera_format_from, raw_format_from
from sdk.media.opening import open_source
from sdk.media.pipe_feed import GstFeed, RawFeed
from sdk.media.reaching import call, comes_back
from sdk.media.sources import Source, sources_from

cv2 = pytest.importorskip("cv2")
WIDTH, HEIGHT = 16, 12
GREY = np.full((HEIGHT, WIDTH), 126, np.uint8)  # luma of (126 - 16) * 255 / 219 = 128 in BT.601


def piped(data):
    """A file descriptor that gives `data`, and then ends."""
    reader, writer = os.pipe()

    def write():
        with os.fdopen(writer, "wb") as file:
            file.write(data)

    threading.Thread(target=write, daemon=True).start()
    return reader


def feed_of(data, form):
    handle = piped(data)
    feed = RawFeed(handle, raw_format_from(form))
    os.close(handle)
    return feed


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


BGR = noise(HEIGHT, WIDTH, 3)
NEUTRAL = np.full(HEIGHT // 2 * WIDTH, 128, np.uint8)
YUYV = np.dstack([GREY, np.full_like(GREY, 128)])
FORMS = {  # form -> (bytes of a frame, picture)
    "bgr24": (BGR, BGR),
    "rgb24": (BGR[:, :, ::-1], BGR),
    "bgra": (np.dstack([BGR, GREY]), BGR),
    "rgba": (np.dstack([BGR[:, :, ::-1], GREY]), BGR),
    "gray": (BGR[:, :, 0], np.dstack([BGR[:, :, 0]] * 3)),
    "nv12": (np.concatenate([GREY.ravel(), NEUTRAL]), np.full_like(BGR, 128)),
    "yuv420p": (np.concatenate([GREY.ravel(), NEUTRAL]), np.full_like(BGR, 128)),
    "yuyv422": (YUYV, np.full_like(BGR, 128)),
}


@pytest.mark.parametrize("form", FORMS)
def test_raw_frames_become_pictures(form):
    data, picture = (np.ascontiguousarray(each) for each in FORMS[form])
    feed = feed_of(data.tobytes() * 2, f"{form}:{WIDTH}x{HEIGHT}")
    for _ in range(2):
        np.testing.assert_array_equal(feed.read().picture, picture)
    with pytest.raises(FeedEndedError):
        feed.read()
    feed.close()


def test_half_a_frame_is_told():
    feed = feed_of(BGR.tobytes()[:-5], f"bgr24:{WIDTH}x{HEIGHT}")
    with pytest.raises(FeedError, match="half a frame: 571 of 576 bytes"):
        feed.read()


def y4m(width, height, colours="C420jpeg"):
    frame = np.concatenate(
        [np.full(width * height, 126, np.uint8), np.full(2 * (-(-width // 2) * -(-height // 2)), 128)]
    )
    return f"YUV4MPEG2 W{width} H{height} F25:1 Ip {colours}\n".encode(), b"FRAME\n" + frame.astype(np.uint8).tobytes()


def test_yuv4mpeg2_tells_its_size_and_changes_it():
    (first, frame), (second, other) = y4m(16, 12), y4m(9, 7)
    feed = feed_of(first + frame * 2 + second + other, "y4m")
    assert [feed.read().picture.shape for _ in range(3)] == [(12, 16, 3), (12, 16, 3), (7, 9, 3)]
    with pytest.raises(FeedEndedError):
        feed.read()


def test_planes_of_odd_sides_are_those_of_even_ones():
    luma, chroma = noise(7, 9), noise(2 * 4 * 5)
    odd = bgr_from_i420(np.concatenate([luma.ravel(), chroma]), 9, 7)
    even = bgr_from_i420(np.concatenate([np.pad(luma, ((0, 1), (0, 1)), mode="edge").ravel(), chroma]), 10, 8)
    np.testing.assert_array_equal(odd, even[:7, :9])


NO_Y4M = {
    "another stream": (b"RIFF....", "it is no YUV4MPEG2"),
    "10 bits": (y4m(4, 4, "C420p10")[0], "YUV4MPEG2 of 8 bits, 4:2:0 or grey, is read"),
    "no size": (b"YUV4MPEG2 F25:1\n", "YUV4MPEG2 of 8 bits"),
    "no pixels": (b"YUV4MPEG2 W0 H4\n", "1 to 16384 pixels a side"),
}


@pytest.mark.parametrize(("data", "message"), NO_Y4M.values(), ids=NO_Y4M)
def test_what_is_no_yuv4mpeg2_is_told(data, message):
    with pytest.raises(FeedError, match=message):
        feed_of(data + b"FRAME\n", "y4m").read()


def test_standard_input_gives_every_frame(monkeypatch):
    handle = piped(BGR.tobytes() * 3)
    monkeypatch.setattr("sys.stdin", os.fdopen(handle))
    with open_source("-", raw=f"bgr24:{WIDTH}x{HEIGHT}") as frames:
        found = list(frames)
    assert frames.name == "standard input" and not frames.is_live
    assert [frame.number for frame in found] == [0, 1, 2] and found[1].time_ms is not None


@pytest.mark.native
def test_prediction_reads_standard_input(small_engine, monkeypatch, tmp_path):
    from tests.support.predict import lines_of, predict

    monkeypatch.setattr("sys.stdin", os.fdopen(piped(BGR.tobytes() * 3)))
    assert predict(small_engine, "-", "--raw", f"bgr24:{WIDTH}x{HEIGHT}", "--jsonl", tmp_path / "p") == 0
    lines = lines_of(tmp_path / "p")
    assert [line["frame"] for line in lines] == [0, 1, 2] and lines[2]["counts"]["frames"] == 3
    assert all(line["age_ms"] >= 0 and line["captured"] > 1e9 for line in lines)


REFUSED = {
    "no form": (lambda: open_source("-"), "source '-' is raw frames on standard input; tell their form"),
    "a form of nothing": (lambda: open_source("a ! b", raw="y4m"), "raw is the form of frames on standard input"),
    "no such pixels": (lambda: raw_format_from("bgr48:4x4"), "raw frames must be named as y4m, or as bgr24:1280x720"),
    "no size": (lambda: raw_format_from("bgr24"), "raw frames must be named"),
    "no pixels": (lambda: raw_format_from("bgr24:0x4"), "1 to 16384 pixels a side"),
    "odd planes": (lambda: raw_format_from("nv12:5x4"), "raw frames of nv12 have even sides"),
    "a camera's": (lambda: camera_format_from("best"), None),
    "a size of 0": (lambda: camera_format_from("MJPG:0x0"), "a camera's size and rate must be above 0, or be left out"),
    "a rate of 0": (lambda: camera_format_from("MJPG:640x480@0.0"), "a camera's size and rate must be above 0"),
    "no camera's": (lambda: camera_format_from("MJPG:big"), "a camera's format must read as MJPG, NV12:1280x720"),
    "of no camera": (lambda: open_source("rtsp://a", camera_format="MJPG"), "camera_format is of a camera"),
    "of a file": (lambda: open_source(__file__.replace(".py", ".none"), live=True), "does not exist"),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_forms_are_held_to_what_they_are_of(call, message):
    if message is None:
        assert str(call()) == "BEST"
        return
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("text", ["NV12", "MJPG:1280x720", "MJPG:1280x720@30", "YUYV:640x480@7.5", "GREY@60"], ids=str)
def test_a_cameras_format_reads_as_it_is_written(text):
    assert str(camera_format_from(text)) == text
    assert len(camera_format_from("y16").fourcc) == 4


LOOKS = {  # sources, what the environment was -> what is added meanwhile
    "a camera": (["rtsp://a/1"], {}, {OPTIONS}),
    "cameras alone": (["rtsp://a/1", "RTSPS://b/1"], {}, {OPTIONS, AT_ONCE}),
    "a camera and a file": (["rtsp://a/1", __file__.replace(".py", ".mp4")], {}, set()),
    "a camera and a page": (["rtsp://a/1", "http://b/1.mjpg"], {}, {AT_ONCE}),
    "files": (["a.mp4", "b.mp4"], {}, set()),
    "nothing": ([], {}, set()),
    "set already": (["rtsp://a/1", "0"], {OPTIONS: "rtsp_transport;udp", AT_ONCE: "0"}, set()),
}


@pytest.mark.parametrize(("words", "before", "added"), LOOKS.values(), ids=LOOKS)
def test_opencv_is_told_what_is_right_for_all_that_is_opened(words, before, added, monkeypatch):
    sources = [Source(Path(word), "video", address=address_of(word)) for word in words]
    monkeypatch.setattr("os.environ", dict(before))
    with opencv_told(sources):
        assert set(os.environ) - set(before) == added and os.environ.items() >= before.items()
    assert os.environ == before


def test_opencv_is_not_asked_for_a_camera_that_takes_no_connection(monkeypatch):
    """It would keep all other openings of the process waiting until its time-out."""
    monkeypatch.setattr(cv2, "VideoCapture", None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(SourceError, match="Connection refused"):
        next(open_source(f"rtsp://127.0.0.1:{port}/1", backend="opencv"))


STAMPS = {  # address, what OpenCV says, ms -> the frame's stamp, s
    "a camera's": ("rtsp://a/1", 1500.0, 1.5),
    "an encoder's": ("udp://a:5000", 40.0, 0.04),
    "a frame without one": ("rtsp://a/1", 0.0, None),
    "nonsense": ("rtsp://a/1", float("nan"), None),
    "of no clock": ("http://a/1.mjpg", 1500.0, None),
    "a file's first": (None, 0.0, 0.0),
}


@pytest.mark.parametrize(("address", "said_ms", "stamp_s"), STAMPS.values(), ids=STAMPS)
def test_opencvs_frames_have_the_stamps_of_sources_that_have_a_clock(address, said_ms, stamp_s, monkeypatch):
    class Capture(Camera):
        def get(self, key):
            return said_ms if key == cv2.CAP_PROP_POS_MSEC else 25.0

    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: Capture(address, 0, []))
    monkeypatch.setattr("sdk.media.cv_feed.call", lambda *_: None)
    feed = OpenCvFeed(Source(Path("a"), "video", address=address), How())
    assert feed.read().stamp_s == stamp_s


class Camera:
    """OpenCV's capture of a camera that has one format."""

    def __init__(self, address, backend, wishes):
        self.address, self.backend = address, backend
        self.wishes = dict(zip(wishes[::2], wishes[1::2], strict=True))
        asked.append(self.wishes)

    def isOpened(self):  # noqa: N802
        return True

    def get(self, key):
        return {cv2.CAP_PROP_FOURCC: cv2.VideoWriter.fourcc(*"MJPG"), 3: 1280, 4: 720, cv2.CAP_PROP_FPS: 30}.get(key, 0)

    def read(self):
        time.sleep(0.03)
        return True, BGR

    def release(self):
        pass


asked: list[dict] = []


def test_a_camera_is_asked_for_its_format_and_held_to_it(monkeypatch, caplog):
    asked.clear()
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    with open_source(0, camera_format="MJPG:1280x720@60") as frames:
        assert next(frames).picture.shape == BGR.shape
    fourcc = cv2.VideoWriter.fourcc(*"MJPG")
    assert asked == [{cv2.CAP_PROP_FOURCC: fourcc, 3: 1280, 4: 720, cv2.CAP_PROP_FPS: 60}]
    assert "the camera gives 30 frames a second (asked for: 60)" in caplog.text
    told = r"it has no format NV12:1280x720, and gives MJPG:1280x720@30"
    with pytest.raises(SourceError, match=told), open_source("/dev/video0", camera_format="NV12:1280x720") as frames:
        next(frames)


SECRETS = {
    "rtsp://me:secret@door/1": "rtsp://door/1",
    "http://door/1?user=me&password=secret&size=2": "http://door/1?user=***&password=***&size=2",
    "srt://door:9000?passphrase=secret secret": None,
    "rtspsrc location=rtsp://me:se@cret@door/1 ! decodebin": "rtspsrc location=rtsp://door/1 ! decodebin",
    'rtspsrc user-id=me user-pw="a secret" ! decodebin': "rtspsrc user-id=*** user-pw=*** ! decodebin",
    "rtsp://door/1": "rtsp://door/1",
    "http://door/1?auth_token=secret&stream_key=secret": "http://door/1?auth_token=***&stream_key=***",
    "http://door/1?id=5&accessToken=secret&X-Amz-Signature=secret": (
        "http://door/1?id=5&accessToken=***&X-Amz-Signature=***"
    ),
    "http://door/1?usr=me&loginuse=me&loginpas=secret&rate=0": (
        "http://door/1?usr=***&loginuse=***&loginpas=***&rate=0"
    ),
    "http://door/1?jwt=secret&session_id=secret": "http://door/1?jwt=***&session_id=***",
    "rtsp://me:a#secret@door/1": "rtsp://door/1",
    "rtsp://me:a/secret?@door/1": "rtsp://door/1",
    "rtsp://me:9secret/@door:554/1": "rtsp://door:554/1",
    "http://door:8080/1@2x.mjpg": "http://door:8080/1@2x.mjpg",
    "http://door/1:2@3.mjpg": "http://door/1:2@3.mjpg",
    "http://[::1]:8080/a@b": "http://[::1]:8080/a@b",
    "http://door:/a@b": "http://door:/a@b",
    "a rtsp://me:a#secret@door/1 and rtsp://b:554/c@d": "a rtsp://door/1 and rtsp://b:554/c@d",
}


@pytest.mark.parametrize("address", SECRETS)
def test_addresses_are_told_without_secrets(address):
    told = without_secrets(address)
    assert SECRETS[address] in (None, told) and "me:" not in told
    assert "secret" not in told.replace("secret secret", "") or SECRETS[address] is None


ADDRESSES = {"0": 0, "/dev/video3": "/dev/video3", "-": "-", "a ! b": "a ! b", "RTSP://a": "RTSP://a", "a.mp4": None}


@pytest.mark.parametrize("word", ADDRESSES)
def test_words_that_name_no_file(word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert address_of(word) == ADDRESSES[word]


NAMES = {
    "rtsp://door/user=me_password=secret_channel=1_stream=0.sdp": "door-channel-1-stream-0",
    "rtsp://door/?user=me_password=secret_channel=2": "door-channel-2",
    "rtsp://me:secret@door/cam/realmonitor?channel=3&subtype=1": "realmonitor-channel-3-subtype-1",
    "http://door/a/clip.mp4?ch=4&token=secret": "clip-ch-4.mp4",
    "http://door/live;token=secret": "live",
    "http://door/a/clip.mp4?token=secret": "clip.mp4",
    "http://me:secret@door/": "door",
    "rtsp://door/key_frames.sdp": "key_frames.sdp",
    "udp://@:5000": "stream",
}


@pytest.mark.parametrize("address", NAMES)
def test_results_are_named_after_an_address_without_its_secrets(address):
    assert file_name_of(address) == NAMES[address]


def test_results_of_addresses_that_differ_have_names_that_do():
    words = ["rtsp://a/live", "rtsp://b/live", "http://c/clip.mp4", "http://d/clip.mp4", "rtsp://a/live"]
    assert [str(source.relative) for source in sources_from(words)] == ["live", "live-2", "clip.mp4", "clip-2.mp4"]
    words = ["rtsp://a/cam", "rtsp://b/cam-2", "rtsp://c/cam", "rtsp://d/cam-2"]  # the second's is a name of its own
    assert [str(source.relative) for source in sources_from(words)] == ["cam", "cam-2", "cam-3", "cam-2-2"]


def test_a_name_that_is_not_resolved_is_not_waited_for(monkeypatch):
    asked, answered = [], threading.Event()

    def resolver(*words, **_):
        asked.append(words)
        answered.wait(20)
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    monkeypatch.setattr("sdk.media.reaching.ANSWER_S", 0.05)
    began = time.monotonic()
    assert [comes_back("rtsp://nowhere/1") for _ in range(3)] == [False] * 3
    assert time.monotonic() - began < 10
    answered.set()
    assert asked == [("nowhere", 554)]


@pytest.mark.parametrize("error", [UnicodeError("label too long"), ValueError("embedded null character")])
def test_a_name_that_is_none_is_told_at_once(monkeypatch, error):
    def resolver(*_, **__):
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    with pytest.raises(OSError, match="the host's name is none"):
        call("rtsp://odd/1", 5.0)


def test_a_name_that_no_thread_could_look_up_is_looked_up_later(monkeypatch):
    def refused(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refused)
        assert comes_back("rtsp://later/1") is False
    began = time.monotonic()
    monkeypatch.setattr("sdk.media.reaching.ANSWER_S", 20)
    assert comes_back("rtsp://later/1") is False and time.monotonic() - began < 10, "who asks now is answered"


def test_closing_a_source_waits_for_no_name(monkeypatch):
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait(20) and [])
    monkeypatch.setattr("sdk.media.reaching.ANSWER_S", 0.05)
    monkeypatch.setattr("sdk.media.opening.open_feed", failing)
    source = open_source("rtsp://nowhere/1", reconnect="always")
    reader = threading.Thread(target=lambda: list(source), daemon=True)
    reader.start()
    source.close()
    reader.join(10)
    answered.set()
    assert not reader.is_alive()


def failing(*_):
    raise FeedError("nobody there")


@pytest.mark.parametrize("name", ["clip.mp4", "picture.png"])
def test_a_pipe_that_nobody_writes_into_is_told(tmp_path, name):
    os.mkfifo(tmp_path / name)
    (item,) = open_source(tmp_path / name, read_timeout_s=0.1).items()
    assert "time-out: nobody wrote into the pipe for 0.1 s; start what writes, or name a file" in item.reason


@pytest.mark.parametrize("backend", ["av", "opencv"])
def test_a_video_is_read_from_a_pipe(tmp_path, backend):
    av = pytest.importorskip("av")
    os.mkfifo(tmp_path / "clip.mkv")
    with av.open(str(tmp_path / "made.mkv"), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuvj420p"
        for value in (10, 200, 90):
            frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), value, np.uint8), format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    content = (tmp_path / "made.mkv").read_bytes()
    writer = threading.Thread(target=lambda: (tmp_path / "clip.mkv").write_bytes(content), daemon=True)
    writer.start()
    frames = [item.picture.mean() for item in open_source(tmp_path / "clip.mkv", read_timeout_s=20, backend=backend)]
    writer.join(10)
    assert np.allclose(frames, (10, 200, 90), atol=4)


NONE = {  # words that can be no camera and no stream -> what is said of them
    "rtsp://me:se#cret@door/1": "the address 'rtsp://door/1' names no host and port; write / ? # @ [ and ] in",
    "rtsp://me:se[cret@door/1": "as %2F %3F %23 %40 %5B and %5D, and an IPv6 host in [ ]",
    "rtsp://door:99999/1": "names no host and port",
    "rtsp://door:x/1": "names no host and port",
    "rtsp://door:0/1": "names no host and port",
    "http://[::1/a.mjpg": "names no host and port",
    "2147483648": "a camera's number must be 0 to 2147483647",
    "1" + "0" * 5000: "a camera's number must be 0 to 2147483647",
}


@pytest.mark.parametrize("word", NONE, ids=lambda word: word[:30])
def test_words_that_can_be_no_camera_and_no_stream_are_refused(word):
    with pytest.raises(InputError) as told:
        open_source(word)
    assert NONE[word] in str(told.value) and "cret" not in str(told.value)


@pytest.mark.parametrize("word", ["udp://@:5000", "srt://:9000?mode=listener", "http://door/a?b[]=1", "RTSP://door"])
def test_addresses_of_other_forms_are_streams(word):
    assert address_of(word) == word


def test_a_source_is_seen_coming_back():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"rtsp://me:secret@127.0.0.1:{server.getsockname()[1]}/1"
        assert comes_back(address) is True
    assert comes_back(address) is False and comes_back("rtsp://a..b/1") is False
    assert comes_back(999) is False and comes_back("a ! b") is None and comes_back("udp://127.0.0.1:5") is None


gst = pytest.mark.skipif(shutil.which("gst-launch-1.0") is None, reason="needs gst-launch-1.0 (gstreamer1.0-tools)")
ELEMENTS = "videotestsrc num-buffers=5 pattern=white ! video/x-raw, width=64, height=48, framerate=25/1"


@gst
@pytest.mark.parametrize("end", ["", " ! videoconvert ! appsink drop=true"], ids=["open", "appsink"])
def test_a_pipeline_gives_its_frames(end):
    with open_source(ELEMENTS + end, live=False) as frames:
        found = list(frames)
    assert len(found) == 5 and all(frame.picture.shape == (48, 64, 3) for frame in found)
    assert min(frame.picture.min() for frame in found) >= 254


@gst
def test_a_pipeline_that_fails_says_why_and_keeps_secrets():
    words = "rtspsrc location=rtsp://me:secret@127.0.0.1:9/x ! decodebin"
    with pytest.raises(SourceError) as told, open_source(words) as frames:
        next(frames)
    assert "Could not open resource" in str(told.value) and "secret" not in str(told.value)


@gst
def test_a_pipeline_that_hangs_is_killed():
    feed = GstFeed("videotestsrc is-live=true ! video/x-raw,width=64,height=48 ! identity sleep-time=100000000")
    threading.Timer(0.2, feed.abort).start()
    with pytest.raises(FeedError, match="the pipeline ended"):
        while True:
            feed.read()
    feed.close()
    assert feed._process.returncode == -signal.SIGKILL


@pytest.mark.native
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-"], "--raw is the form of frames on standard input, the source '-'; give --raw"),
        (["0", "--raw", "y4m"], "name the source '-', or leave --raw out"),
        (["a ! b", "--camera-format", "MJPG"], "--camera-format is of V4L2 cameras, and no source is one"),
    ],
    ids=["no form", "a form of nothing", "no camera"],
)
def test_prediction_holds_forms_to_sources(small_engine, words, message, capsys):
    from tests.support.predict import predict

    assert predict(small_engine, *words) == 2 and message in capsys.readouterr().err
    assert issubclass(UsageError, InputError)


def test_a_form_knows_its_bytes():
    assert RawFormat("nv12", 4, 2).bytes_of_frame == 12 and RawFormat("bgra", 4, 2).bytes_of_frame == 32
