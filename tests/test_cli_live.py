"""`sdk live` and `sdk demo --live`: words, refusals, and a whole run ended by a signal."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="the extra 'live' is not installed")
pytest.importorskip("starlette", reason="the extra 'live' is not installed")
cv2 = pytest.importorskip("cv2")

from sdk.cli import _parser, main  # noqa: E402
from sdk.cli.live import _opened, _words, live_source  # noqa: E402
from sdk.live.playback import Playback  # noqa: E402
from sdk.media.opening import open_source  # noqa: E402
from sdk.media.sources import sources_from  # noqa: E402
from sdk.media.videos import SourceFrame  # noqa: E402
from sdk.resources import bundled_engines  # noqa: E402

ROOT = str(Path(__file__).resolve().parents[1])
BUNDLED = next(iter(bundled_engines()))


def test_the_last_word_may_be_the_engine(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "engine.json").touch()
    mine = str(tmp_path / "mine")
    assert _words(["0", "rtsp://yard/1", mine]) == (["0", "rtsp://yard/1"], mine)
    assert _words(["0", BUNDLED]) == (["0"], BUNDLED)
    assert _words(["0", BUNDLED.partition(".")[0]]) == (["0"], BUNDLED.partition(".")[0])
    assert _words(["0", "rtmpose-s-256x192"]) == (["0"], "rtmpose-s-256x192"), "how it is built is told then"
    assert _words(["a.mp4", "b.mp4"]) == (["a.mp4", "b.mp4"], None)
    assert _words([mine, "0"]) == ([mine, "0"], None), "only the last"


REFUSED = [
    (["live", "nothing.mp4"], "nothing.mp4"),
    (
        ["live", "0", "nope.fp16"],
        "'nope.fp16' was taken for a source: an engine is a folder with an",
    ),
    (["live", "0", "--port", "99999"], "port must be a number of 0 to 65535"),
    (["live", "0", "--quality", "0"], "--quality must be a number of 1 to 100"),
    (["live", "0", "--detect-every", "3"], "needs a --detector"),
    (["live", "-"], "--raw is the form of frames on standard input, the source '-'; give --raw"),
    (["live", "0", "--raw", "y4m"], "name the source '-', or leave --raw out"),
    (["live", "rtsp://yard/1", "--camera-format", "MJPG"], "--camera-format is of V4L2 cameras, and no source is one"),
    (["live", "0", "--camera-format", "best:"], "a camera's format must read as"),
    (["live", "0", "--read-timeout", "0"], "read_timeout_s must be a number of seconds above 0"),
    (["live", "0", "--token-file", "none.txt"], "none.txt"),
    (["live", "0", "--token-file", "short.txt"], "16 to 128 letters"),
    (["live", "0", "--record-to", "short.txt/below"], "cannot be written"),
]


@pytest.mark.parametrize(("words", "told"), REFUSED, ids=[" ".join(words) for words, _ in REFUSED])
def test_what_cannot_be_is_refused_before_anything_is_opened(words, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.txt").write_text("short")
    assert main(words) in (1, 2)
    assert told in capsys.readouterr().err


def test_without_a_camera_the_demo_is_named(capsys, monkeypatch):
    monkeypatch.setattr("sdk.cli.live.Path.glob", lambda self, pattern: iter(()))
    assert main(["live"]) == 2
    assert "sdk demo --live" in capsys.readouterr().err


def test_a_detector_of_the_catalogue_is_fetched_before_the_page_opens(monkeypatch):
    done = []
    monkeypatch.setattr("sdk.networks.weights_file", lambda recipe: done.append(recipe.name))
    monkeypatch.setattr("sdk.cli.live.serve_page", lambda *_, detector, **how: done.append(str(detector)) or 0)
    assert main(["live", "rtsp://yard/1", "--detector", "yolox-nano-416"]) == 0
    assert done == ["yolox-nano-416", "yolox-nano-416"]


def test_each_source_is_opened_by_the_options_that_are_for_it(monkeypatch):
    """By those of `sdk predict`, and what each is of."""
    asked = []
    monkeypatch.setattr("sdk.media.opening.open_source", lambda word, **how: asked.append((word, how)) or Opened())
    everywhere = ["--reconnect", "always", "--read-timeout", "3", "--backend", "av", "--hwaccel", "vaapi", "--live"]
    words = ["live", "0", "-", "rtsp://yard/1", *everywhere, "--camera-format", "MJPG:640x480", "--raw", "y4m"]
    arguments = _parser(words).parse_args(words)
    named = _words(arguments.words)[0]
    _opened(named, [sources_from([word])[0] for word in named], arguments)
    shared = {"reconnect": "always", "read_timeout_s": 3.0, "backend": "av", "hwaccel": "vaapi", "live": True}
    assert asked == [
        ("0", {**shared, "camera_format": "MJPG:640x480"}),
        ("-", {**shared, "raw": "y4m"}),
        ("rtsp://yard/1", shared),
    ]


class Opened:
    is_live = True


def test_raw_frames_on_standard_input_are_shown_once(monkeypatch):
    """There is no second time of a pipe."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as pipe:
        pipe.write(bytes(3 * 4 * 2 * 3))
    with os.fdopen(reader) as given:
        monkeypatch.setattr("sys.stdin", given)
        shown = list(live_source("-", raw="bgr24:4x2"))
    assert [(frame.number, frame.picture.shape) for frame in shown] == [(number, (2, 4, 3)) for number in range(3)]


RUNS = {
    "a clip": (["live", "clip.mp4", BUNDLED], signal.SIGINT),
    "the demo": (["demo", "--live", "--compiler", "none", "--frames", "8"], signal.SIGTERM),
}


@pytest.mark.native
@pytest.mark.parametrize(("words", "number"), RUNS.values(), ids=RUNS)
def test_a_run_from_start_to_signal(tmp_path, words, number):
    clip(tmp_path)
    program = "import sys, sdk.cli; sys.exit(sdk.cli.main(sys.argv[1:]))"
    words = [*words, "--port", "0", "--health", "--no-browser"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": tmp_path}
    running = subprocess.Popen([sys.executable, "-c", program, *words], **pipes, env={**os.environ, "PYTHONPATH": ROOT})
    try:
        url = running.stdout.readline().split()[-1]
        deadline = time.monotonic() + 120
        told = {}
        while told.get("last_frame_age_s") is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
            try:
                told = json.loads(urllib.request.urlopen(f"{url}healthz", timeout=60).read())
            except urllib.error.HTTPError as error:
                assert error.code == 503, "no frame yet"
        assert told["status"] == "running"
        running.send_signal(number)
        _, err = running.communicate(timeout=120)
    finally:
        running.kill()
    assert running.returncode == 0, err
    assert "Traceback" not in err and "interrupted" not in err


def clip(folder):
    path = folder / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30.0, (96, 64))
    for number in range(10):
        writer.write(np.full((64, 96, 3), 20 * number, np.uint8))
    writer.release()
    return path


def frames(count, step_ms=10.0):
    return [SourceFrame(np.zeros((2, 2, 3), np.uint8), number, number * step_ms) for number in range(count)]


def test_a_recording_is_shown_at_its_pace_and_again():
    player = Playback("a", lambda: frames(4), repeat=True)
    shown, start = [], time.monotonic()
    for frame in player:
        shown.append(frame)
        if len(shown) == 6:
            player.close()
    assert [frame.number for frame in shown] == list(range(6))
    assert time.monotonic() - start >= 0.07, "three steps of 10 ms, one of 40 between two showings, one more"
    steps = np.diff([frame.time_ms for frame in shown])
    assert (steps > 0).all() and player.is_live


def test_a_recording_that_is_left_in_its_middle_is_closed(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("sdk.media.opening.open_source", lambda word: opened.append(open_source(word)) or opened[-1])
    player = live_source(str(clip(tmp_path)))
    for frame in player:
        if frame.number == 1:
            player.close()
    assert len(opened) == 2, "one to know what it is, one a showing"
    assert list(opened[-1]) == [], "a source that is closed gives nothing more"


def test_a_recording_that_is_shown_once_ends():
    shown = list(Playback("a", lambda: frames(3), repeat=False))
    assert [frame.number for frame in shown] == [0, 1, 2]
    assert list(Playback("nothing", list, repeat=True)) == []
