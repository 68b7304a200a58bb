"""The live page's parts without a server: messages, mailboxes, figures, who may ask."""

import asyncio
import json
import struct

import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="the extra 'live' is not installed")
pytest.importorskip("starlette", reason="the extra 'live' is not installed")

from sdk.errors import InputError
from sdk.live.gauges import Gauges
from sdk.live.guard import Rules
from sdk.live.mailbox import IN_FLIGHT, Frame, Mailbox
from sdk.live.prometheus import exposition
from sdk.live.wire import frame_message, look_of, parsed_frame
from sdk.skeletons import CROWDPOSE14, SKELETONS
from tests.support.live import SCALE, TOKEN, poses_of

# --- messages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("persons", [0, 1, 5])
@pytest.mark.parametrize("ids", [True, False])
def test_a_frame_message_says_what_the_poses_say(persons, ids):
    rng = np.random.default_rng(persons)
    joints = rng.uniform(0, 640, (persons, 14, 2)).astype(np.float32)
    poses = (
        poses_of(joints, CROWDPOSE14, ids=ids) if persons else poses_of(np.ones((1, 14, 2)), CROWDPOSE14, ids=ids)[:0]
    )
    message = frame_message(
        camera=2, number=7, poses=poses, size_hw=(480, 640), jpeg=b"\xff\xd8\xff-", times_ms={"a": 1, "b": float("nan")}
    )
    head, told, boxes, jpeg = parsed_frame(message)
    assert struct.unpack_from("<I", message)[0] % 4 == 0, "numbers lie on multiples of four"
    assert (head["camera"], head["frame"], head["width"], head["height"]) == (2, 7, 640, 480)
    assert head["ids"] == (list(range(1, persons + 1)) if ids else None) and head["times_ms"] == {"a": 1}
    np.testing.assert_array_equal(told[..., :2], poses.keypoints)
    np.testing.assert_array_equal(told[..., 2], poses.scores)
    np.testing.assert_array_equal(boxes, np.concatenate([poses.boxes, poses.box_scores[:, None]], axis=1))
    assert jpeg == b"\xff\xd8\xff-"


@pytest.mark.parametrize("message", [b"", b"\x02\x00\x00\x00", b"\x02\x00\x00\x00{}", b"\x03\x00\x00\x00abc"])
def test_half_a_message_is_refused(message):
    with pytest.raises(InputError, match="a live message"):
        parsed_frame(message)


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)
def test_the_look_names_every_joint_once(skeleton):
    look = look_of(skeleton, SCALE)
    drawn = [joint for part in look["parts"] for joint in part["joints"]]
    assert sorted(drawn) == list(range(len(skeleton.joints)))
    assert {(a, b) for part in look["parts"] for a, b, _ in part["limbs"]} <= set(skeleton.limbs)
    json.dumps(look, allow_nan=False)


# --- mailboxes --------------------------------------------------------------------------------------------------------


def frame(camera, number=0):
    return Frame(camera, b"%d" % number, 0.0)


def test_a_mailbox_keeps_the_newest_frame_of_each_camera():
    async def run():
        mailbox = Mailbox()
        for number in range(5):
            mailbox.put_frame(frame(0, number))
        mailbox.put_frame(frame(1, 9))
        mailbox.put_text("state", "old")
        mailbox.put_text("state", "new")
        return [await mailbox.take() for _ in range(3)], mailbox.replaced

    taken, replaced = asyncio.run(run())
    assert taken == ["new", frame(0, 4), frame(1, 9)] and replaced == 4


def test_no_more_frames_than_are_answered_go_out():
    async def run():
        clock = iter(range(1000))
        mailbox = Mailbox(lambda: next(clock))
        for number in range(IN_FLIGHT):
            mailbox.put_frame(frame(0, number))
            assert await mailbox.take() == frame(0, number)
        mailbox.put_frame(frame(0, 7))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(mailbox.take(), 0.02)
        assert mailbox.silent_s() > 0
        mailbox.put_frame(frame(1, 8))  # another camera is not held up
        assert await mailbox.take() == frame(1, 8)
        mailbox.arrived(0)
        assert await mailbox.take() == frame(0, 7)
        for camera in (0, 0, 0, 0, 1, 1):  # more answers than frames give no more frames
            mailbox.arrived(camera)
        assert mailbox.silent_s() == 0

    asyncio.run(run())


def test_silence_begins_with_the_first_frame_that_is_under_way():
    async def run():
        now = [0.0]
        mailbox = Mailbox(lambda: now[0])
        for number in range(IN_FLIGHT):  # nothing came for a minute, and nobody asked
            now[0] += 60.0 if number == 0 else 1.0
            mailbox.put_frame(frame(0, number))
            await mailbox.take()
            assert mailbox.silent_s() == number
        mailbox.arrived(0)
        now[0] += 3.0
        assert mailbox.silent_s() == 3, "the other one is still under way"
        mailbox.arrived(0)
        now[0] += 60.0
        assert mailbox.silent_s() == 0

    asyncio.run(run())


# --- figures ----------------------------------------------------------------------------------------------------------


def test_figures_are_of_the_last_moments_and_counts_of_the_whole_run():
    now = [100.0]
    gauges = Gauges(["a", "b"], lambda: now[0])
    for number in range(300):
        now[0] = 100 + number / 30
        gauges.note_result(0, 2, 10.0 if number < 297 else 40.0, {"network": 8.0, "crop": 0.5})
        gauges.note_stage("encode", 2.0)
    rate, none = gauges.rates()
    assert rate["fps"] == pytest.approx(30, abs=0.2) and rate["persons"] == 2 and rate["frames"] == 300
    assert rate["latency_ms"] == {"p50": 10.0, "p99": 10.3}
    assert [stage["name"] for stage in gauges.stages()] == ["crop", "network", "encode"]
    assert (none["fps"], none["age_s"], none["latency_ms"]) == (0.0, None, None)
    now[0] += 60
    assert gauges.stages() == [] and gauges.rates()[0]["frames"] == 300 and gauges.since_last_s(0) > 59


def test_prometheus_is_told_in_its_own_form():
    gauges = Gauges(['north "door"\\1'], lambda: 1.0)
    for age in (1.0, 20.0, 5000.0):
        gauges.note_result(0, 1, age, {})
    told = {
        "cameras": [{"counts": {"dropped": 4}, "age_s": 0.5}],
        "viewers": 3,
        "resident_bytes": 5 << 20,
        "memory_bytes": None,
        "celsius": 51.5,
        "watts": None,
    }
    text = exposition(told, gauges, lost=False, replaced=6)
    label = '{camera="north \\"door\\"\\\\1"}'
    for line in (
        f"sdk_live_frames_total{label} 3",
        f"sdk_live_dropped_total{label} 4",
        f"sdk_live_latency_seconds_count{label} 3",
        "sdk_live_viewers 3",
        "sdk_live_temperature_celsius 51.5",
        "sdk_live_device_lost 0",
    ):
        assert f"\n{line}\n" in text, line
    buckets = [int(line.split()[-1]) for line in text.splitlines() if "_bucket{" in line]
    assert buckets == sorted(buckets) and buckets[0] == 1 and buckets[-2:] == [2, 3]
    named = {line.split("{")[0].split(" ")[0] for line in text.splitlines() if not line.startswith("#")}
    typed = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert {name.replace("_bucket", "").replace("_sum", "").replace("_count", "") for name in named} <= typed
    assert "\nsdk_live_power_watts " not in text and "\n# TYPE sdk_live_power_watts " in text


# --- who may ask ------------------------------------------------------------------------------------------------------

LOCAL = Rules(frozenset({"localhost", "127.0.0.1", "[::1]"}), any_address=False, token=None)
OPEN = Rules(frozenset({"localhost", "cam.example"}), any_address=True, token=TOKEN)
HOSTS = {  # Host -> answered (on this machine alone, on the net)
    "localhost:8642": (True, True),
    "LOCALHOST.": (True, True),
    "127.0.0.1:1": (True, True),
    "[::1]:8642": (True, True),
    "192.168.1.7:8642": (False, True),
    "[fe80::1]": (False, True),
    "cam.example": (False, True),
    "evil.example:8642": (False, False),
    "localhost.evil.example": (False, False),
    "127.0.0.1.evil.example": (False, False),
    "localhost:8642@evil.example": (False, False),
    "": (False, False),
    "localhost ": (False, False),
    "0x7f000001": (False, False),
}


@pytest.mark.parametrize(("host", "answers"), HOSTS.items(), ids=[repr(host) for host in HOSTS])
def test_the_host_must_be_this_server(host, answers):
    assert (LOCAL.answers_to(host), OPEN.answers_to(host)) == answers


@pytest.mark.parametrize(
    ("authorization", "protocols", "admitted"),
    [
        (f"Bearer {TOKEN}", [], True),
        ("", ["sdk-live.1", f"token.{TOKEN}"], True),
        (f"Bearer {TOKEN}x", [], False),
        (TOKEN, [], False),
        ("Bearer ", ["token."], False),
        ("", [TOKEN], False),
        ("", [], False),
        ("Bearer \xe9", ["token.\xe9"], False),
    ],
)
def test_the_token_is_asked_for(authorization, protocols, admitted):
    assert OPEN.admits(authorization, protocols) is admitted
    assert LOCAL.admits(authorization, protocols)
