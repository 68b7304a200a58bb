"""`sdk.Cameras`: several sources on one plan, on the CPU and on a simulated GPU. No test asserts how long anything
takes; when batches begin is `test_gathering`'s matter."""

import _thread
import threading

import numpy as np
import pytest

import sdk
from sdk.errors import ClosedError, InputError, SourceError
from sdk.people.camera_readers import CameraSource, Readers
from sdk.people.tracking import Tracker
from tests.support.cuda_frames import DeviceArray, random_frame
from tests.support.threads import wait_for

pytestmark = pytest.mark.native
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

SIZES = ((90, 120), (64, 48), (120, 90))


@pytest.fixture
def engine(simulate, monkeypatch):
    """An engine whose largest batch is 8, on the CPU and on a simulated device."""
    from sdk.runtime.cuda import gpu_pipeline

    _, engine, kernels = simulate()
    monkeypatch.setattr(gpu_pipeline, "NativeKernels", lambda: kernels)
    return engine


@pytest.fixture(autouse=True)
def no_thread_stays():
    before = set(threading.enumerate())
    yield
    wait_for(lambda: set(threading.enumerate()) <= before)


def two_persons(frame):
    height, width = frame.shape[:2]
    return [[2, 3, width / 2, height - 4], [width / 2, 5, width - 2, height]], [0.9, 0.8]


def video(camera, frames):
    return [random_frame(100 * camera + number, SIZES[camera % len(SIZES)]) for number in range(frames)]


def gate(frames, opened):
    """Frames, the second and later ones once `opened`."""
    for number, frame in enumerate(frames):
        if number:
            opened.wait()
        yield frame


def failing(frames, error):
    yield from frames
    raise error


def by_camera(found):
    told = {}
    for each in found:
        told.setdefault(each.camera, []).append(each)
    return told


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("detect_every", [1, 3])
def test_each_camera_gets_what_it_would_get_alone(engine, device, detect_every):
    videos = [video(0, 5), video(1, 2), video(2, 7)]
    rules = {"detector": two_persons, "tracker": True, "detect_every": detect_every, "device": device}
    with sdk.Cameras(videos, engine, **rules) as cameras:
        told = by_camera(cameras)
    for camera, frames in enumerate(videos):
        assert [each.frame.number for each in told[camera]] == list(range(len(frames)))
        with sdk.PoseEstimator(engine, **rules) as alone:
            for each, poses in zip(told[camera], map(alone, frames), strict=True):
                assert each.frame.picture is frames[each.frame.number] and each.name == f"source {camera}"
                np.testing.assert_array_equal(each.poses.track_ids, poses.track_ids)
                np.testing.assert_array_equal(each.poses.keypoints, poses.keypoints)
                np.testing.assert_array_equal(each.poses.box_scores, poses.box_scores)


def test_frames_that_are_there_share_a_batch(engine):
    videos = [video(camera, 3) for camera in range(3)]
    with sdk.Cameras(videos, engine, device="cpu", max_wait_s=60) as cameras:
        wait_for(lambda: cameras._readers._start() or len(cameras._readers._gathering._there) == 3)
        found = [next(cameras) for _ in range(3)]
    assert [each.together for each in found] == [3, 3, 3] and {each.camera for each in found} == {0, 1, 2}
    number, name, frame, poses = found[0]
    assert (number, name, frame.number, len(poses)) == (found[0].camera, found[0].name, 0, 1)


def test_frames_in_device_memory(engine):
    videos = [video(camera, 2) for camera in range(2)]
    with sdk.Cameras([map(DeviceArray, frames) for frames in videos], engine, device="cuda") as cameras:
        told = by_camera(cameras)
    with sdk.PoseEstimator(engine, device="cpu", tracker=True) as alone:
        np.testing.assert_array_equal(told[0][0].poses.keypoints, alone(videos[0][0]).keypoints)
        assert isinstance(told[0][0].frame.picture, DeviceArray)


def test_a_tracker_is_copied_for_each_camera_and_none_gives_no_ids(engine):
    given = Tracker(patience=3)
    with sdk.Cameras([video(0, 2), video(1, 2)], engine, device="cpu", tracker=given) as cameras:
        told = by_camera(cameras)
    assert [told[camera][0].poses.track_ids.tolist() for camera in (0, 1)] == [[1], [1]]
    assert not given._tracks
    with sdk.Cameras([video(0, 2)], engine, device="cpu", tracker=None) as cameras:
        assert [each.poses.track_ids for each in cameras] == [None, None]


def test_a_video_file_is_a_camera_too(engine, clip):
    with sdk.Cameras([str(clip), clip], engine, device="cpu") as cameras:
        told = by_camera(cameras)
    assert [[each.frame.number for each in told[camera]] for camera in (0, 1)] == [list(range(5))] * 2
    assert told[0][0].name == str(clip)


ENDS = {
    "a source that raises": (lambda: failing(video(0, 2), OSError("the cable is out")), 2, "the cable is out"),
    "a frame of another type": (lambda: [video(0, 1)[0], np.zeros((4, 4, 3), np.float32)], 1, "frame must be uint8"),
    "a source that has none": (lambda: failing([], ValueError("not begun")), 0, "not begun"),
}


@pytest.mark.parametrize("case", ENDS)
def test_what_a_camera_raises_ends_it_alone_and_is_told(engine, case, caplog):
    make, given, message = ENDS[case]
    with sdk.Cameras([make(), video(1, 6)], engine, device="cpu") as cameras:
        found = []
        with pytest.raises(SourceError, match=rf"camera 0 'source 0' ended after {given} frames: .*{message}"):
            found.extend(cameras)
            raise AssertionError("the iteration ended as if nothing had been")
    assert message in caplog.text


@pytest.mark.parametrize("case", ENDS)
def test_who_asks_is_told_of_ends_between_the_poses(engine, case):
    make, given, message = ENDS[case]
    ends = []
    with sdk.Cameras([make(), video(1, 6)], engine, device="cpu", on_end=ends.append) as cameras:
        told = by_camera(cameras)
        assert cameras.ends == {end.camera: end for end in ends}
    assert (len(told.get(0, [])), len(told[1])) == (given, 6)
    failed, whole = sorted(ends, key=lambda end: end.camera)
    assert message in str(failed.error) and (failed.frames, whole.frames, whole.error) == (given, 6, None)


def test_a_camera_that_blocks_holds_up_nobody(engine):
    opened = threading.Event()
    with sdk.Cameras([gate(video(0, 2), opened), video(1, 6)], engine, device="cpu") as cameras:
        found = [next(cameras) for _ in range(7)]  # the other's frames, all, while this one has given one
        opened.set()
        found.extend(cameras)
    assert [len(each) for each in (by_camera(found)[0], by_camera(found)[1])] == [2, 6]


def test_the_detectors_error_reaches_who_iterates(engine):
    def broken(frame):
        raise RuntimeError("the detector is ill")

    with (
        sdk.Cameras([video(0, 3), video(1, 3)], engine, device="cpu", detector=broken) as cameras,
        pytest.raises(RuntimeError, match="the detector is ill"),
    ):
        next(cameras)


STATES = {
    "before the first": lambda cameras: None,
    "after one": next,
    "after the end": list,
    "with a batch ahead": lambda cameras: next(cameras) and wait_for(lambda: cameras._batches._batch is not None),
}


@pytest.mark.parametrize("state", STATES)
def test_closing_in_each_state_ends_every_thread(engine, state):
    cameras = sdk.Cameras([video(0, 4), video(1, 9)], engine, device="cpu")
    STATES[state](cameras)
    cameras.close()
    cameras.close()
    with pytest.raises(ClosedError, match="the cameras are closed"):
        next(cameras)


@pytest.mark.parametrize("sources", ["nothing comes", "one gives"])
def test_closing_while_sources_block_says_which(engine, sources, caplog, monkeypatch):
    from sdk.people import camera_readers

    monkeypatch.setattr(camera_readers, "LEAVE_S", 0.05)
    opened, blocked = threading.Event(), threading.Event()

    def blocking():
        blocked.set()
        opened.wait()
        yield from ()

    others = [video(1, 1)] if sources == "one gives" else []
    with sdk.Cameras([blocking(), *others], engine, device="cpu") as cameras:
        closer = threading.Thread(target=lambda: blocked.wait() and cameras.close())
        closer.start()
        assert len(list(cameras)) <= len(others)  # it ends quietly: it was this program's own doing
        closer.join()
    assert "camera 0 'source 0' is closed, but its source still blocks" in caplog.text
    opened.set()
    wait_for(lambda: not any(each.name.startswith("sdk-camera") for each in threading.enumerate()))


def test_an_interrupt_while_waiting_ends_every_thread(engine):
    opened = threading.Event()
    with pytest.raises(KeyboardInterrupt), sdk.Cameras([gate(video(0, 2), opened)], engine, device="cpu") as cameras:
        next(cameras)
        threading.Timer(0.05, lambda: (_thread.interrupt_main(), opened.set())).start()
        while True:
            next(cameras)
            opened.clear()


def test_what_the_consumer_raises_ends_every_thread(engine):
    finished = []

    def source():
        try:
            yield from video(0, 50)
        finally:
            finished.append(threading.current_thread().name)

    with pytest.raises(ZeroDivisionError), sdk.Cameras([source()], engine, device="cpu") as cameras:
        for _ in cameras:
            1 / 0  # noqa: B018
    assert finished == ["sdk-camera-0"]


def test_of_a_live_source_the_newest_frame_counts_and_of_a_file_every_one():
    laid, taken = threading.Semaphore(0), []

    def source():
        for frame in video(0, 4):
            yield frame
            laid.release()

    live, file = (
        Readers([CameraSource(name, frames, is_live=name == "live")], lambda frame: frame)
        for name, frames in (("live", source()), ("file", video(0, 4)))
    )
    live._start()
    for _ in range(4):
        laid.acquire()
    for readers in (live, file):
        while (gathered := readers.gathered()) is not None:
            taken.extend((each.name, each.frame.number) for each in gathered.frames)
            ends = gathered.ends or None
        assert ends[0].passed_over == (3 if readers is live else 0) and ends[0].frames == 4
        readers.close()
    assert taken == [("live", 3), *(("file", number) for number in range(4))]


@pytest.mark.parametrize("what", ["a file", "frames"])
def test_an_opened_source_is_a_camera_and_closed_with_them(engine, clip, what):
    source = sdk.open_source(clip if what == "a file" else [random_frame(0)] * 5)
    with sdk.Cameras([source, [random_frame(0)]], engine, device="cpu") as cameras:
        next(cameras)
    assert list(source) == [] and source._is_closed


BAD = {
    "frames of another format": (
        lambda engine: sdk.Cameras([0], engine, pixel_format="rgb"),
        "camera 0, 'camera 0', gives BGR frames, not rgb",
    ),
    "no list": (lambda engine: sdk.Cameras("0", engine), "cameras must be a list of sources"),
    "no source": (lambda engine: sdk.Cameras([3.5], engine), "camera 0 must be a camera's number, a URL, a file"),
    "no file": (lambda engine: sdk.Cameras(["nowhere.mp4"], engine), "'nowhere.mp4' does not exist"),
    "no wait": (lambda engine: sdk.Cameras([[]], engine, max_wait_s=-1), "max_wait_s must be seconds"),
    "no rule": (lambda engine: sdk.Cameras([[]], engine, detect_every=0), "detect_every must be"),
    "no tracker": (lambda engine: sdk.Cameras([[]], engine, tracker=3), "tracker must be True"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_no_cameras_can_be_made_of_is_refused(engine, case):
    make, message = BAD[case]
    with pytest.raises(InputError) as caught:
        make(engine)
    assert message in str(caught.value)


def test_no_camera_at_all_ends_at_once(engine):
    with sdk.Cameras([], engine, device="cpu") as cameras:
        assert list(cameras) == []
