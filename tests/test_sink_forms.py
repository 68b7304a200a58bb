"""Results in other tools' forms: tables, supervision, Rerun, OpenPose's and MMPose's JSON, H.264 with its sound."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from sdk.errors import InputError, MissingDependencyError, OutputError
from sdk.media import tables
from sdk.media.keypoint_files import mmpose_instances, openpose_record
from sdk.media.opening import open_source
from sdk.media.rerun_file import RerunFile
from sdk.media.sinks import VideoFile
from sdk.media.tables import table_file
from sdk.media.videos import SourceFrame
from sdk.poses import Poses
from sdk.skeletons import COCO17, FACE68, WHOLEBODY133
from tests.support.predict import names_in, noise, predict, write_clip

cv2 = pytest.importorskip("cv2")


def some_poses(persons=2, skeleton=COCO17, seed=0, **more):
    rng = np.random.default_rng(seed)
    joints = len(skeleton.joints)
    corners = rng.uniform(0, 50, (persons, 2))
    return Poses(
        keypoints=rng.uniform(0, 100, (persons, joints, 2)).astype(np.float32),
        scores=rng.uniform(0, 1, (persons, joints)).astype(np.float32),
        boxes=np.concatenate([corners, corners + 40], axis=1).astype(np.float32),
        box_scores=rng.uniform(0, 1, persons).astype(np.float32),
        skeleton=skeleton,
        **more,
    )


def frames(count=3, seed=0):
    return [SourceFrame(noise(seed + k), k, 40.0 * k, "clip.mp4") for k in range(count)]


def rows_of(path):
    if path.suffix == ".csv":
        return [{key: value or None for key, value in row.items()} for row in __import__("csv").DictReader(path.open())]
    return pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@pytest.mark.parametrize("tracked", [False, True], ids=["untracked", "tracked"])
def test_a_table_holds_every_person_of_every_frame(tmp_path, ending, tracked):
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"poses{ending}"
    found = [some_poses(n, seed=n, track_ids=np.arange(n) + 7 if tracked else None) for n in (2, 0, 3)]
    with table_file(path) as table:
        for frame, poses in zip(frames(), found, strict=True):
            table.write(frame, poses)
    rows = rows_of(path)
    assert len(rows) == table.rows == 5 and names_in(tmp_path) == [path.name]
    last = rows[-1]
    assert (last["source"], int(last["frame"]), int(last["person"]), float(last["time_ms"])) == ("clip.mp4", 2, 2, 80)
    assert last["track_id"] == (None if not tracked else "9" if ending == ".csv" else 9)
    assert float(last["left_knee_x"]) == pytest.approx(float(found[2].keypoints[2, 13, 0]), rel=1e-6)
    assert float(last["left_knee_score"]) == pytest.approx(float(found[2].scores[2, 13]), rel=1e-6)
    assert float(last["x2"]) == pytest.approx(float(found[2].boxes[2, 2]), rel=1e-6) and float(last["captured"]) > 1e9


def test_a_depth_that_there_is_not_is_empty(tmp_path):
    depths = np.full((1, 17), np.nan, np.float32)
    depths[0, 0] = 1.5
    with table_file(tmp_path / "a.csv") as table:
        table.write(frames()[0], some_poses(1, depths=depths))
    (row,) = rows_of(tmp_path / "a.csv")
    assert row["nose_depth"] == "1.5" and row["left_eye_depth"] is None


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".rrd", ".mp4"])
def test_a_file_whose_block_raises_is_none_but_for_lines(tmp_path, ending):
    makers = {".rrd": RerunFile, ".mp4": lambda path: VideoFile(path, 25)}
    packages = {".parquet": "pyarrow", ".rrd": "rerun"}
    if ending in packages:
        pytest.importorskip(packages[ending])
    path = tmp_path / f"a{ending}"
    with pytest.raises(KeyError), makers.get(ending, table_file)(path) as file:
        file.write(*((noise(0), 0.0) if ending == ".mp4" else (frames()[0], some_poses(2))))
        raise KeyError
    assert names_in(tmp_path) == (["a.csv.part"] if ending == ".csv" else [])


def test_a_table_of_nothing_is_one(tmp_path):
    with table_file(tmp_path / "a.csv"):
        pass
    pytest.importorskip("pyarrow")
    with table_file(tmp_path / "a.parquet"):
        pass
    assert names_in(tmp_path) == ["a.csv", "a.parquet"] and rows_of(tmp_path / "a.parquet") == []


def test_a_table_keeps_its_columns(tmp_path):
    with pytest.raises(InputError, match="holds poses of one joint set"), table_file(tmp_path / "a.csv") as table:
        table.write(frames()[0], some_poses())
        table.write(frames()[1], some_poses(skeleton=WHOLEBODY133))


def test_a_table_of_another_form_is_refused_and_a_missing_package_told(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"a table must end in \.csv or \.parquet"):
        table_file(tmp_path / "a.xlsx")
    monkeypatch.setattr(tables.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'simcc-edge-sdk\[parquet\]'"):
        table_file(tmp_path / "a.parquet")
    with pytest.raises(MissingDependencyError, match=r"pip install 'simcc-edge-sdk\[rerun\]'"):
        RerunFile(tmp_path / "a.rrd")
    with pytest.raises(MissingDependencyError, match=r"pip install 'simcc-edge-sdk\[av\]'"):
        VideoFile(tmp_path / "a.mp4", 25, codec="h264")


@pytest.mark.parametrize("persons", [0, 3])
@pytest.mark.parametrize("tracked", [False, True], ids=["untracked", "tracked"])
def test_supervision_has_joints_boxes_and_ids(persons, tracked):
    sv = pytest.importorskip("supervision")
    poses = some_poses(persons, track_ids=np.arange(persons) + 4 if tracked else None)
    points, found = poses.to_supervision()
    assert (
        isinstance(points, sv.KeyPoints) and isinstance(found, sv.Detections) and len(points) == len(found) == persons
    )
    np.testing.assert_array_equal(points.xy, poses.keypoints)
    np.testing.assert_array_equal(points.keypoint_confidence, poses.scores)
    np.testing.assert_array_equal(points.detection_confidence, poses.box_scores)
    np.testing.assert_array_equal(points.visible, poses.scores >= 0.3)
    np.testing.assert_array_equal(found.xyxy, poses.boxes)
    if tracked:
        np.testing.assert_array_equal(points.data["tracker_id"], poses.track_ids)
        np.testing.assert_array_equal(found.tracker_id, poses.track_ids)
        if persons:
            np.testing.assert_array_equal(points[[2, 0]].data["tracker_id"], [6, 4])
    else:
        assert found.tracker_id is None and "tracker_id" not in points.data


def test_supervision_draws_what_it_is_given():
    sv = pytest.importorskip("supervision")
    points, _ = some_poses(2).to_supervision()
    drawn = sv.VertexAnnotator().annotate(np.zeros((120, 120, 3), np.uint8), points)
    assert drawn.any()


def test_openpose_has_its_eighteen_points_and_parts():
    poses = some_poses(2, WHOLEBODY133, track_ids=np.array([5, 6]))
    record = json.loads(json.dumps(openpose_record(poses, (90, 120))))
    first = record["people"][0]
    assert record["version"] == 1.3 and (record["canvas_width"], record["canvas_height"]) == (120, 90)
    assert first["person_id"] == [5] and len(first["pose_keypoints_2d"]) == 54
    assert [len(first[key]) for key in ("face_keypoints_2d", "hand_left_keypoints_2d")] == [204, 63]
    joints = poses.skeleton.joints
    left, right = joints.index("left_shoulder"), joints.index("right_shoulder")
    neck = [*poses.keypoints[0, [left, right]].mean(axis=0), poses.scores[0, [left, right]].min()]
    assert first["pose_keypoints_2d"][3:6] == pytest.approx(neck, abs=1e-3)
    wrist = joints.index("right_wrist")
    assert first["pose_keypoints_2d"][12:14] == pytest.approx(poses.keypoints[0, wrist].tolist(), abs=1e-3)


def test_openpose_of_what_has_no_body_is_refused():
    with pytest.raises(InputError, match="OpenPose's JSON is of bodies, and skeleton 'face68' has no shoulders"):
        openpose_record(some_poses(1, FACE68), (9, 9))


def test_mmpose_has_its_instances():
    poses = some_poses(2)
    first = mmpose_instances(poses)[0]
    assert np.shape(first["keypoints"]) == (17, 2) and np.shape(first["bbox"]) == (1, 4) and "track_id" not in first
    assert first["keypoint_scores"] == pytest.approx(poses.scores[0].tolist())


def test_a_rerun_recording_is_one(tmp_path):
    pytest.importorskip("rerun")
    path = tmp_path / "a.rrd"
    with RerunFile(path) as recording:
        for frame in frames():
            recording.write(frame, some_poses(2, track_ids=np.array([1, 2])))
        recording.write(SourceFrame(noise(0), source="photo.jpg"), some_poses(0))
    assert names_in(tmp_path) == ["a.rrd"] and path.stat().st_size > 3000
    program = shutil.which("rerun", path=str(__import__("pathlib").Path(sys.executable).parent))
    if program:
        subprocess.run([program, "rrd", "verify", str(path)], check=True, capture_output=True, timeout=60)


def with_sound(path, seconds=2):
    """A clip of ten frames a second, with a tone as AAC; one that is a transport stream begins at 1.4 s."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w", options={"max_delay": "700000"} if path.suffix == ".ts" else {}) as container:
        video, sound = container.add_stream("mpeg4", rate=10), container.add_stream("aac", rate=16000)
        video.width, video.height, video.pix_fmt = 120, 90, "yuv420p"
        for index in range(10 * seconds):
            container.mux(video.encode(av.VideoFrame.from_ndarray(noise(index), format="bgr24")))
        container.mux(video.encode())
        wave = np.sin(np.arange(16000 * seconds) / 6).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    return path


@pytest.mark.native
@pytest.mark.parametrize("ending", ["mp4", "ts"])
def test_prediction_keeps_times_and_sound_in_h264(small_engine, tmp_path, ending):
    av = pytest.importorskip("av")
    clip = with_sound(tmp_path / f"clip.{ending}")
    with av.open(str(clip)) as made:
        assert float(made.streams.video[0].start_time * made.streams.video[0].time_base) == (
            1.4 if ending == "ts" else 0
        )
    assert predict(small_engine, clip, "--save", tmp_path / "out", "--max-frames", "12") == 0
    with av.open(str(tmp_path / "out" / "clip.mp4")) as saved:
        video, sound = saved.streams.video[0], saved.streams.audio[0]
        assert (video.codec_context.name, sound.codec_context.name, video.frames) == ("h264", "aac", 12)
        assert float(sound.duration * sound.time_base) == pytest.approx(1.2, abs=0.15)
        assert float(sound.start_time * sound.time_base) == pytest.approx(0, abs=0.07)
        assert [1e3 * float(f.pts * f.time_base) for f in saved.decode(video)] == [100.0 * k for k in range(12)]


TIMES = [100.0, 133.333, 170.0, 171.0, 600.5, 1600.0]


@pytest.mark.parametrize("codec", ["h264", "mp4v"])
def test_a_saved_video_keeps_the_times_of_its_frames(tmp_path, codec):
    if codec == "h264":
        pytest.importorskip("av")
    with VideoFile(tmp_path / "a.mp4", 29.97, codec=codec) as video:
        for number, time_ms in enumerate(TIMES):
            video.write(noise(number), time_ms)
    found = list(open_source(tmp_path / "a.mp4"))
    steps = [frame.time_ms - found[0].time_ms for frame in found]
    assert steps == pytest.approx([time_ms - 100 for time_ms in TIMES], abs=0.02 if codec == "h264" else 1)
    assert max(np.abs(f.picture.astype(int) - noise(n)).mean() for n, f in enumerate(found)) < 12


def test_a_full_disk_is_told_of_h264_too(tmp_path, monkeypatch):
    pytest.importorskip("av")
    from sdk.media import av_video

    def full(self, picture, time_ms):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(av_video.AvVideoWriter, "write", full)
    with pytest.raises(OutputError, match="No space left on device"), VideoFile(tmp_path / "a.mp4", 25) as video:
        video.write(noise(0))
    assert names_in(tmp_path) == []


def test_an_unknown_codec_is_refused(tmp_path):
    with pytest.raises(InputError, match="codec must be 'auto', 'h264' or 'mp4v'"):
        VideoFile(tmp_path / "a.mp4", 25, codec="av1")


TAKERS = """
seen = []
def on_poses(frame, poses): seen.append((frame.source, frame.number, len(poses)))
"""


@pytest.mark.native
def test_prediction_writes_every_form_at_once(small_engine, tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    pytest.importorskip("rerun")
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "clip.avi")
    cv2.imwrite(str(tmp_path / "photo.png"), noise(0))
    (tmp_path / "taker_of_poses.py").write_text(TAKERS)
    files = ["--table", "t.parquet", "--rerun", "r.rrd", "--openpose", "op", "--mmpose", "mm"]
    assert predict(small_engine, "clip.avi", "photo.png", *files, "--call", "taker_of_poses:on_poses") == 0
    assert len(rows_of(tmp_path / "t.parquet")) >= 6 and (tmp_path / "r.rrd").stat().st_size > 1000
    assert names_in(tmp_path / "op")[:2] == ["clip_000000000000_keypoints.json", "clip_000000000001_keypoints.json"]
    assert len(names_in(tmp_path / "op")) == 6 and names_in(tmp_path / "mm") == ["clip.json", "photo.json"]
    clip, photo = (json.loads((tmp_path / "mm" / name).read_text()) for name in ("clip.json", "photo.json"))
    assert [each["frame_id"] for each in clip] == [0, 1, 2, 3, 4] and "keypoints" in photo[0]
    assert len(sys.modules["taker_of_poses"].seen) == 6


@pytest.mark.native
def test_one_folder_may_take_pictures_openposes_and_mmposes_files(small_engine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("photo.png", noise(0))
    (tmp_path / "out").mkdir()
    (tmp_path / "same").symlink_to("out")
    assert predict(small_engine, "photo.png", "--save", "out", "--openpose", "./out", "--mmpose", "same") == 0
    assert names_in(tmp_path / "out") == ["photo.json", "photo.png", "photo_000000000000_keypoints.json"]


@pytest.mark.parametrize("option", ["--openpose", "--mmpose"])
@pytest.mark.parametrize("names", [("a.jpg", "a.png"), ("clip.avi", "clip.mp4")], ids=lambda names: names[0])
def test_two_sources_of_one_name_are_refused(small_engine, tmp_path, monkeypatch, capsys, option, names):
    monkeypatch.chdir(tmp_path)
    for name in names:
        (tmp_path / name).write_bytes(b"never read")
    assert predict(small_engine, *names, option, "out") == 2
    stem = names[0].split(".")[0]
    told = f"'{names[0]}' and '{names[1]}' would both be written as '{stem}' in 'out'; run them separately"
    assert told in capsys.readouterr().err and names_in(tmp_path) == sorted(names)


@pytest.mark.native
@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_an_interrupt_loses_no_row_of_a_csv(small_engine, tmp_path, monkeypatch, caplog, ending):
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "clip.avi")
    stopping = "def f(frame, poses):\n    if frame.number == 2: raise KeyboardInterrupt\n"
    (tmp_path / "stopping_taker.py").write_text(stopping)
    assert predict(small_engine, "clip.avi", "--table", f"t{ending}", "--call", "stopping_taker:f") == 1
    lost = "nothing" if ending == ".csv" else "the unfinished 't.parquet'"
    assert f"interrupted after 3 frames; lost: {lost}\n" in caplog.text
    assert ("t.csv.part" in names_in(tmp_path)) == (ending == ".csv")


WRONG = {
    "no such form": (["--table", "a.xlsx"], 1, "a table must end in .csv or .parquet"),
    "no module": (["--call", "no_such_module_here:f"], 2, "no module 'no_such_module_here' is found from here"),
    "no function": (["--call", "json:no_such"], 2, "module 'json' has no 'no_such'"),
    "no name": (["--call", "json"], 2, "--call must name MODULE:FUNCTION, such as my_app:on_poses"),
    "over the source": (["--table", "photo.csv", "--rerun", "photo.csv"], 2, "would both be written to"),
}


@pytest.mark.native
@pytest.mark.parametrize(("words", "status", "message"), WRONG.values(), ids=WRONG)
def test_words_that_name_no_result_are_refused(small_engine, tmp_path, monkeypatch, capsys, words, status, message):
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("photo.png", noise(0))
    if "--rerun" in words:
        pytest.importorskip("rerun")
    assert predict(small_engine, "photo.png", *words) == status and message in capsys.readouterr().err
    assert names_in(tmp_path) == ["photo.png"]


def test_a_fault_of_the_called_module_is_told_as_its_own(small_engine, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("photo.png", noise(0))
    (tmp_path / "faulty_taker.py").write_text("import json\njson.lods\ndef f(frame, poses): pass\n")
    assert predict(small_engine, "photo.png", "--call", "faulty_taker:f") == 1
    assert "AttributeError: module 'json' has no attribute 'lods'" in capsys.readouterr().err


def test_mmposes_file_of_a_camera_is_refused(small_engine, tmp_path, capsys):
    assert predict(small_engine, "0", "--mmpose", tmp_path / "mm") == 2
    assert "--mmpose writes a file at the end of its source, and 'camera 0' has none" in capsys.readouterr().err
