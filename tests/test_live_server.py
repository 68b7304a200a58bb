"""The live page's server without a browser: answers, what is asked of it, many and slow viewers, its life."""

import asyncio
import json
import re
import shlex
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
import weakref
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="the extra 'live' is not installed")
pytest.importorskip("starlette", reason="the extra 'live' is not installed")
connect = pytest.importorskip("websockets.sync.client", reason="the extra 'live' is not installed").connect
cv2 = pytest.importorskip("cv2")

from websockets.exceptions import ConnectionClosed, InvalidStatus  # noqa: E402

from sdk.cli import _parser  # noqa: E402
from sdk.errors import DeviceLostError, InputError  # noqa: E402
from sdk.live.application import SLOW, _send  # noqa: E402
from sdk.live.mailbox import Mailbox  # noqa: E402
from sdk.live.serving import LINGER_S, Server, ServingOptions, check_options, serve  # noqa: E402
from sdk.live.steadying import smoothing_of  # noqa: E402
from sdk.live.viewers import Viewers  # noqa: E402
from sdk.people.smoothing import Smoothing  # noqa: E402
from tests.support.live import AGES_S, TOKEN, Camera, served  # noqa: E402
from tests.support.threads import wait_for  # noqa: E402
from tests.support.viewer import WAIT_S, Viewer, viewer  # noqa: E402


def asked(page, path, **headers):
    """Status, headers and body of an answer."""
    request = urllib.request.Request(f"http://127.0.0.1:{page.port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


@pytest.fixture(scope="module")
def local():
    with served(Camera(fps=60).watch(), health=True, metrics=True) as page:
        yield page


@pytest.fixture(scope="module")
def open_page():
    with served(Camera(fps=60).watch(), host="0.0.0.0", token=TOKEN, hosts=("cam.example",), metrics=True) as page:
        yield page


def test_every_answer_forbids_what_the_page_does_not_need(local):
    for path in ("/", "/page/live.js", "/page/live.css", "/nothing", "/healthz"):
        _, headers, _ = asked(local, path)
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'") and "unsafe" not in policy
        assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")
        assert "server" not in headers


def test_the_page_holds_no_inline_script_or_style_and_names_no_other_host(local):
    for name in ("", "page/live.js", "page/tile.js", "page/draw.js", "page/chart.js", "page/wire.js", "page/live.css"):
        status, _, text = asked(local, f"/{name}")
        assert status == 200
        assert "http://" not in text and "https://" not in text
    _, _, html = asked(local, "/")
    assert " style=" not in html and "<style" not in html and " onclick" not in html
    assert html.count("<script") == html.count('<script type="module" src="/page/live.js"></script>') == 1


NO_ANSWER = {  # headers -> status, words
    "another host": ({"Host": "evil.example"}, 421, "--allow-host"),
    "another origin": ({"Origin": "http://evil.example"}, 403, "another origin"),
    "a page of no origin": ({"Origin": "null"}, 403, "another origin"),
    "another port of this machine": ({"Origin": "http://localhost:3000"}, 403, "another origin"),
}


@pytest.mark.parametrize(("headers", "status", "words"), NO_ANSWER.values(), ids=NO_ANSWER)
@pytest.mark.parametrize("path", ["/", "/healthz", "/metrics"])
def test_other_hosts_and_origins_get_no_answer(local, path, headers, status, words):
    got, _, text = asked(local, path, **headers)
    assert got == status and words in text


@pytest.mark.parametrize(("headers", "status", "words"), NO_ANSWER.values(), ids=NO_ANSWER)
def test_other_hosts_and_origins_get_no_socket(local, headers, status, words):
    with socket.create_connection(("127.0.0.1", local.port)) as raw, pytest.raises(InvalidStatus) as refused:
        connect(f"ws://{headers.get('Host', f'127.0.0.1:{local.port}')}/watch", sock=raw, origin=headers.get("Origin"))
    assert refused.value.response.status_code == 403


def test_beyond_this_machine_a_token_is_needed(open_page):
    assert asked(open_page, "/")[0] == 200, "the page itself is no secret"
    assert asked(open_page, "/metrics")[0] == 401
    assert asked(open_page, "/metrics", Authorization="Bearer nonsense")[0] == 401
    assert asked(open_page, "/metrics", Authorization=f"Bearer {TOKEN}")[0] == 200
    for wrong in ([], ["sdk-live.1"], ["sdk-live.1", "token.nonsense"]):
        with viewer(open_page, subprotocols=wrong or None) as socket_, pytest.raises(ConnectionClosed) as closed:
            socket_.recv(timeout=WAIT_S)
        assert closed.value.rcvd.code == 4401
    with viewer(open_page, subprotocols=["sdk-live.1", f"token.{TOKEN}"]) as right:
        assert right.subprotocol == "sdk-live.1" and json.loads(right.recv(timeout=WAIT_S))["type"] == "hello"
    assert open_page.url.endswith(f"/#token={TOKEN}")


REFUSED = [
    ({"host": "0.0.0.0"}, "can be reached by others and needs a token"),
    ({"host": "0.0.0.0", "token": "short"}, "16 to 128 letters"),
    ({"token": "white space is no part of it"}, "16 to 128 letters"),
    ({"port": 70000}, "port must be a number of 0 to 65535"),
]


@pytest.mark.parametrize(("options", "words"), REFUSED)
def test_what_would_be_open_to_everybody_is_refused(options, words):
    with pytest.raises(InputError, match=words):
        check_options(ServingOptions(**options))


def test_a_port_in_use_and_a_host_elsewhere_are_told(local):
    with pytest.raises(
        InputError, match=rf"port {local.port} of 127.0.0.1 is in use by another program; choose another"
    ):
        serve(Camera().watch(), ServingOptions(port=local.port))
    with pytest.raises(InputError, match=r"192.0.2.1 cannot be opened .*give an address of this machine"):
        serve(Camera().watch(), ServingOptions(host="192.0.2.1", port=0, token=TOKEN))


# --- what is asked ----------------------------------------------------------------------------------------------------


def test_operators_see_health_and_figures(local, monkeypatch):
    wait_for(lambda: local.watch.gauges.cameras[0].frames > 3)
    monkeypatch.setattr("sdk.live.application.STALE_S", AGES_S)
    status, headers, text = asked(local, "/healthz")
    told = json.loads(text)
    assert (status, told["status"], told["device_lost"]) == (200, "running", False) and told["last_frame_age_s"] >= 0
    status, headers, text = asked(local, "/metrics")
    assert status == 200 and headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "sdk_live_frames_total" in text


def test_figures_are_gathered_beside_the_event_loop(local, monkeypatch):
    gatherers, statistics = [], local.watch.statistics

    def noted():
        gatherers.append(threading.current_thread())
        return statistics()

    monkeypatch.setattr(local.watch, "statistics", noted)
    assert asked(local, "/metrics")[0] == 200
    assert local.thread not in gatherers and any(not one.name.startswith("sdk-live") for one in gatherers)


def test_both_are_off_unless_asked_for():
    with served(Camera().watch()) as page:
        assert [asked(page, path)[0] for path in ("/healthz", "/metrics")] == [404, 404]


def test_a_viewer_sees_frames_state_and_figures(local):
    with Viewer(local) as one:
        hello = one.text("hello")
        assert hello["cameras"] == ["camera 0"] and hello["look"]["joints"][0] == "left_shoulder"
        head, joints, _, jpeg = one.frame()
        assert joints.shape == (1, 14, 3) and (head["width"], head["height"]) == (320, 240)
        assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape == (240, 320, 3)
        told = one.text("statistics")
        assert {stage["name"] for stage in told["stages"]} >= {"wait", "crop", "network", "decode", "encode", "send"}
        assert told["cameras"][0]["frames"] > 0 and told["viewers"] >= 1


def test_stop_and_start_act_and_everybody_is_told(local):
    with Viewer(local) as one, Viewer(local) as other:
        while one.frame()[0]["frame"] == 0:
            pass
        one.say(do="stop")
        assert other.text("state", lambda told: not told["running"])
        before = local.watch.gauges.cameras[0].frames
        assert json.loads(asked(local, "/healthz")[2])["status"] == "stopped"
        time.sleep(0.3)
        assert local.watch.gauges.cameras[0].frames <= before + 1, "the one that was on its way, of 18"
        with Viewer(local) as late:  # who comes while it is stopped sees the last frame
            assert late.frame()[0]["frame"] > 0
        one.say(do="start")
        assert other.text("state", lambda told: told["running"])
        wait_for(lambda: local.watch.gauges.cameras[0].frames > before)


WRONG = [
    ({"do": "dance"}, "do must be one of"),
    ({"do": 3}, "a word 'do'"),
    ([], "a word 'do'"),
    ({"do": "arrived", "camera": 1}, "camera must be"),
    ({"do": "arrived", "camera": True}, "camera must be"),
    ({"do": "smooth", "value": "1"}, "smoothing must be"),
    ({"do": "smooth", "value": 1.5}, "smoothing must be"),
]


@pytest.mark.parametrize(("message", "words"), WRONG, ids=[str(message) for message, _ in WRONG])
def test_a_message_that_says_nothing_known_ends_that_viewer_alone(local, message, words):
    with Viewer(local) as other:
        with viewer(local) as socket_, pytest.raises(ConnectionClosed) as closed:
            socket_.send(json.dumps(message))
            while True:
                socket_.recv(timeout=WAIT_S)
        assert closed.value.rcvd.code == 1008 and words in closed.value.rcvd.reason
        other.frame()


def test_a_long_message_is_refused(local):
    with viewer(local) as socket_, pytest.raises(ConnectionClosed):
        socket_.send("x" * 5000)
        while True:
            socket_.recv(timeout=WAIT_S)


def test_smoothing_acts_at_once():
    """A joint that trembles by two pixels comes as it is, and then held nearly still."""
    with served(Camera(fps=60, trembling_px=2.0).watch(smoothing=0.0)) as page, Viewer(page) as one:
        loose = np.std([one.frame()[1][0, 0, 0] for _ in range(20)])
        one.say(do="smooth", value=1.0)
        assert one.text("state", lambda told: told["smoothing"] == 1.0)
        for _ in range(10):
            one.frame()
        assert np.std([one.frame()[1][0, 0, 0] for _ in range(20)]) < 0.35 * loose and loose > 0.8


@pytest.mark.parametrize("strength", [0.1, 0.5, 1.0])
def test_the_middle_of_the_slider_is_the_library_s_own_smoothing(strength):
    smoothing, own = smoothing_of(strength), Smoothing()
    assert (smoothing.still_hz < own.still_hz) is (strength > 0.5)
    assert (smoothing == own) is (strength == 0.5)


# Ten minutes of a camera at 60 a second before a pipeline half as fast: what passes through it, without the waiting.
OVERLOAD = 18_000


def test_ten_minutes_of_a_camera_twice_as_fast_as_the_pipeline_leave_nothing_behind():
    alive, most = weakref.WeakSet(), [0]

    class Counted(Camera):
        def __iter__(self):
            for result in super().__iter__():
                alive.add(result.frame)
                most[0] = max(most[0], len(alive))
                yield result

    camera = Counted(fps=1e6, size_hw=(24, 32), frames=OVERLOAD)
    with served(camera.watch()) as page, viewer(page, max_queue=1, close_timeout=0.1), Viewer(page) as one:
        one.frame()
        told = one.text("state", lambda told: told["ended"])
        assert told["error"] is None and page.watch.gauges.cameras[0].frames == OVERLOAD
        assert most[0] <= 8, "the newest, the one before, and what a thread holds at the moment"
        assert all(len(samples) <= 2048 for samples in page.watch.gauges._stages.values())


PAGE = Path(__file__).resolve().parents[1] / "docs/live.md"


def test_the_program_of_the_docs_reads_frames(local):
    (program,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    known = {}
    exec(compile(program, str(PAGE), "exec"), known)
    reading = known["frames"](f"ws://127.0.0.1:{local.port}/watch")
    numbers = [next(reading)[0]["frame"] for _ in range(5)]
    reading.close()
    assert numbers == sorted(numbers)


def test_the_commands_of_the_docs_are_understood():
    commands = re.findall(r"(?:^\$ |/|command: )sdk (.*?)(?:\s{2,}#.*)?$", PAGE.read_text(), re.M)
    assert len(commands) >= 6
    for command in commands:
        words = shlex.split(command)
        assert _parser(words).parse_args(words).verb in ("live", "demo")


# --- many and slow viewers --------------------------------------------------------------------------------------------


def test_twenty_viewers_see_the_same_frames_and_one_too_many_is_told(monkeypatch):
    monkeypatch.setattr("sdk.live.application.SILENT_S", AGES_S)  # the last one answers when all have come
    with served(Camera(fps=60).watch(), viewers=20) as page:
        viewers = [Viewer(page) for _ in range(20)]
        try:
            for each in viewers:
                assert each.frame()[1].shape == (1, 14, 3)
            with viewer(page) as socket_, pytest.raises(ConnectionClosed) as closed:
                socket_.recv(timeout=WAIT_S)
            assert closed.value.rcvd.code == 1013 and "at most 20 viewers" in closed.value.rcvd.reason
        finally:
            for each in viewers:
                each.__exit__()
        wait_for(lambda: len(page.watch._viewers) == 0)


def test_a_viewer_that_stops_reading_is_sent_away_and_slows_nobody(monkeypatch):
    monkeypatch.setattr("sdk.live.application.SILENT_S", AGES_S / 2)
    stuck = {"max_queue": 1, "close_timeout": 0.1}  # its client reads no more once one message waits
    with served(Camera(fps=120).watch()) as page, Viewer(page) as well, viewer(page, **stuck):
        wait_for(lambda: len(page.watch._viewers) == 2)
        seen = [well.frame()[0]["frame"] for _ in range(20)]
        assert seen == sorted(seen) and page.watch._viewers.slow == 0
        page.outwait_the_silent()
        wait_for(lambda: len(page.watch._viewers) == 1)
        assert page.watch._viewers.slow == 1 and well.frame()


def test_a_viewer_whose_socket_takes_nothing_is_sent_away(monkeypatch):
    """What a kernel's full buffers do to a message: its sending does not end."""

    class Full:
        def __init__(self):
            self.closed = []

        async def send_text(self, text):
            await asyncio.Event().wait()

        async def close(self, code, words):
            self.closed.append(code)

    async def run():
        mailbox, socket_, viewers = Mailbox(), Full(), Viewers(1, lambda: None)
        mailbox.put_text("state", "{}")
        await _send(None, viewers, socket_, mailbox)
        return viewers.slow, socket_.closed

    monkeypatch.setattr("sdk.live.application.SEND_S", 0.01)
    assert asyncio.run(run()) == (1, [SLOW])


# --- the server's life ------------------------------------------------------------------------------------------------


def test_at_the_end_a_recording_that_is_on_is_finished(tmp_path):
    with served(Camera(fps=60).watch(tmp_path)) as page, Viewer(page) as one:
        one.say(do="record")
        one.text("statistics", lambda told: told["recording"]["frames"] > 2)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".jsonl", ".mp4"]


def test_where_the_sources_end_the_page_stays():
    with served(Camera(frames=5, fps=200).watch(), health=True) as page, Viewer(page) as one:
        assert one.text("state", lambda told: told["ended"])["error"] is None
        assert json.loads(asked(page, "/healthz")[2])["status"] == "ended"


@pytest.mark.parametrize(
    ("error", "status"), [(InputError("camera 0 broke"), "failed"), (DeviceLostError("gone"), "lost")]
)
def test_an_error_is_shown_and_then_ends_the_server(monkeypatch, error, status):
    stop, later_s = Server.stop, []
    monkeypatch.setattr(Server, "stop", lambda self, *, after_s=0.0: later_s.append(after_s))
    with served(Camera(frames=3, fps=200, error=error).watch(), health=True) as page:
        with Viewer(page) as one:
            told = one.text("state", lambda told: told["error"])
        assert told["error"] == str(error) and told["lost"] is (status == "lost")
        got, _, text = asked(page, "/healthz")
        assert got == 503 and json.loads(text)["status"] == status
        assert later_s == [LINGER_S]
        stop(page.server, after_s=0.01)
        page.wait()
    assert page.errors == [error]


def test_a_hangup_that_is_ignored_stays_ignored():
    """As `nohup` leaves it: a server that listened to it would end with its terminal."""
    heard = []

    def announce(_):
        heard.extend(signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM))
        server.stop()

    server = Server(Camera(fps=60).watch(), ServingOptions(port=0))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        server.run(announce)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert heard[0] == signal.SIG_IGN and heard[1] not in (signal.SIG_IGN, signal.SIG_DFL)


def test_nothing_of_a_server_stays_behind():
    before = set(threading.enumerate())
    with served(Camera().watch()) as page, Viewer(page) as one:
        one.frame()
    wait_for(lambda: set(threading.enumerate()) <= before)
