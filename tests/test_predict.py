"""`sdk predict`: results on disk and on stdout, and what is left when something goes wrong."""

import errno
import json
from pathlib import Path, PurePath

import numpy as np
import pytest

from sdk import PoseEstimator
from sdk.cli import main
from sdk.cli._annotated import AnnotatedCopies
from sdk.media import sinks
from sdk.media.sources import Source
from tests.support.predict import lines_of, names_in, noise, predict, write

pytestmark = pytest.mark.native
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
cv2 = pytest.importorskip("cv2")


def test_a_folder_gives_lines_results_and_pictures(small_engine, photos, tmp_path):
    out, lines, coco = tmp_path / "out", tmp_path / "p.jsonl", tmp_path / "deep" / "r.json"
    assert predict(small_engine, photos, "--save", out, "--jsonl", lines, "--coco", coco, "--threshold", "-99") == 0
    assert names_in(out) == ["0.png", "1.png", "2.png"]
    found = lines_of(lines)
    assert [Path(line["source"]).name for line in found] == ["0.png", "1.png", "2.png"]
    with PoseEstimator(small_engine, device="cpu", threads=1) as estimate:
        for index, (line, record) in enumerate(zip(found, json.loads(coco.read_text()), strict=True)):
            poses = estimate(noise(index))
            np.testing.assert_allclose(line["keypoints"], poses.keypoints, atol=1e-4)
            np.testing.assert_allclose(line["scores"], poses.scores, atol=1e-5)
            assert (line["width"], line["height"], line["frame"]) == (120, 90, 0) and line["track_ids"] is None
            assert record["image_id"] == index and record["file_name"] == f"{index}.png"
            np.testing.assert_allclose(np.reshape(record["keypoints"], (-1, 3))[:, :2], poses.keypoints[0], atol=1e-3)
            assert (cv2.imread(str(out / f"{index}.png")) != noise(index)).any()


def test_a_video_gives_a_video_and_ids(small_engine, clip, tmp_path):
    out, lines = tmp_path / "out", tmp_path / "p.jsonl"
    assert predict(small_engine, clip, "--save", out, "--jsonl", lines) == 0
    found = lines_of(lines)
    assert [line["frame"] for line in found] == list(range(5))
    assert all(len(line["track_ids"]) == len(line["keypoints"]) for line in found)
    capture = cv2.VideoCapture(str(out / "clip.mp4"))
    assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == 5 and capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    assert names_in(out) == ["clip.mp4"]


def test_without_tracking_a_video_has_no_ids(small_engine, clip, tmp_path):
    assert predict(small_engine, clip, "--no-track", "--jsonl", tmp_path / "p.jsonl") == 0
    found = lines_of(tmp_path / "p.jsonl")
    assert all(line["track_ids"] is None and line["boxes"] == [[0, 0, 120, 90]] for line in found)


def test_persons_and_ids_begin_anew_with_each_video(small_engine, clip, tmp_path):
    again = tmp_path / "again.avi"
    again.write_bytes(clip.read_bytes())
    assert predict(small_engine, clip, again, "--jsonl", tmp_path / "p.jsonl") == 0
    told = [(line["frame"], line["boxes"], line["track_ids"]) for line in lines_of(tmp_path / "p.jsonl")]
    assert told[:5] == told[5:] and told[0][2] == [1]


def test_joints_are_drawn_from_the_threshold_on(small_engine, photos, tmp_path, caplog):
    assert predict(small_engine, photos, "--save", tmp_path / "out", "--threshold", "1e9") == 0
    assert np.array_equal(cv2.imread(str(tmp_path / "out" / "0.png")), noise(0))
    told = (
        f"--threshold 1e+09, so none is drawn; by its score rule a joint of engine '{small_engine}' counts from 0.3 on"
    )
    assert caplog.text.count(told) == 1
    caplog.clear()
    assert predict(small_engine, photos, "--save", tmp_path / "out", "--threshold", "-99") == 0
    assert predict(small_engine, photos, "--threshold", "1e9") == 0
    assert "reached" not in caplog.text


def test_spreads_are_told_and_drawn_on_request(small_engine, photos, tmp_path):
    told = []
    for name, more in (("plain", []), ("sure", ["--spread"])):
        where = ["--save", tmp_path / name, "--jsonl", tmp_path / f"{name}.jsonl", "--threshold", "-99"]
        assert predict(small_engine, photos / "0.png", *where, *more) == 0
        told += lines_of(tmp_path / f"{name}.jsonl")
    plain, sure = told
    assert "spread" not in plain and plain["keypoints"] == sure["keypoints"]
    assert np.array(sure["spread"]).shape == np.array(sure["second"]).shape == (1, 14, 2)
    assert (tmp_path / "plain/0.png").read_bytes() != (tmp_path / "sure/0.png").read_bytes()


def test_style_openpose_is_drawn_on_black(small_engine, photos, tmp_path):
    options = ("--save", tmp_path / "out", "--style", "openpose", "--threshold", "-99")
    assert predict(small_engine, photos / "0.png", *options) == 0
    with PoseEstimator(small_engine, device="cpu", threads=1) as estimate:
        expected = estimate(noise(0)).draw(noise(0), -99, style="openpose")
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "out" / "0.png")), expected)
    assert expected.any()


def test_a_style_without_pictures_is_refused(small_engine, photos, capsys):
    assert predict(small_engine, photos, "--style", "openpose") == 2
    assert "--style openpose is of the pictures that --save writes; give --save" in capsys.readouterr().err


def test_json_on_stdout_is_the_lines_of_the_file(small_engine, photos, tmp_path, capsys):
    assert predict(small_engine, photos / "1.png", "--json", "--jsonl", tmp_path / "p.jsonl") == 0
    (printed,) = map(json.loads, capsys.readouterr().out.splitlines())
    (written,) = lines_of(tmp_path / "p.jsonl")
    assert printed == written


def test_one_is_not_told_as_many(small_engine, photos, caplog):
    with caplog.at_level("INFO", "sdk"):
        assert predict(small_engine, photos / "1.png") == 0
    assert "1 person in 1 frame of 1 source" in caplog.messages


def test_the_summary_is_one_line_a_frame(small_engine, photos, capsys):
    assert predict(small_engine, photos) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 3 and "0.png:0  1 person, " in printed[0]


@pytest.mark.data
def test_a_detector_finds_the_persons(small_engine, shared, tmp_path):
    photo = shared / "data" / "samples" / "coco" / "000000000785.jpg"
    detector = shared / "models" / "rtmdet-nano-person.onnx"
    assert predict(small_engine, photo, "--detector", detector, "--coco", tmp_path / "r.json") == 0
    (record,) = json.loads((tmp_path / "r.json").read_text())
    assert record["image_id"] == 785


# --- nothing half-written --------------------------------------------------------------------------------------------


def test_sources_are_never_overwritten(small_engine, photos, capsys):
    before = {path: path.read_bytes() for path in photos.iterdir()}
    assert predict(small_engine, photos, "--save", photos) == 2
    assert "--save would overwrite the source" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in photos.iterdir()}


def saved_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def test_pictures_of_one_name_in_two_folders_keep_their_folders(small_engine, photos, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    cv2.imwrite(str(other / "1.png"), noise(9))
    out, coco = tmp_path / "out", tmp_path / "r.json"
    assert predict(small_engine, photos, other, "--save", out, "--coco", coco) == 0
    expected = [*(f"{photos.name}/{n}.png" for n in range(3)), "other/1.png"]
    assert saved_below(out) == sorted(expected)
    assert [record["file_name"] for record in json.loads(coco.read_text())] == expected


@pytest.mark.parametrize("words", [["session", "--recursive"], ["session/**/*.png"]], ids=["a folder", "a pattern"])
def test_folders_below_keep_their_paths(small_engine, photos, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    for camera in ("cam0", "cam1"):
        (tmp_path / "session" / camera).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "session" / camera / "000.png"), noise(1))
    assert predict(small_engine, *words, "--save", "out", "--coco", "r.json") == 0
    assert saved_below(tmp_path / "out") == ["cam0/000.png", "cam1/000.png"]
    found = json.loads((tmp_path / "r.json").read_text())
    assert [(record["image_id"], record["file_name"]) for record in found] == [(1, "cam0/000.png"), (2, "cam1/000.png")]


def test_two_videos_that_would_become_one_are_refused(small_engine, clip, tmp_path, capsys):
    (tmp_path / "clip.mkv").write_bytes(clip.read_bytes())
    assert predict(small_engine, clip, tmp_path / "clip.mkv", "--save", tmp_path / "out") == 2
    assert "would both be saved as" in capsys.readouterr().err and names_in(tmp_path / "out") == []


def test_ctrl_c_leaves_whole_pictures_and_nothing_half_written(small_engine, photos, tmp_path, monkeypatch, caplog):
    calls = []

    def interrupted(self, frame, *rest, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, frame, *rest, **options)

    real = PoseEstimator.__call__
    monkeypatch.setattr(PoseEstimator, "__call__", interrupted)
    out = tmp_path / "out"
    assert predict(small_engine, photos, "--save", out, "--jsonl", out / "p.jsonl", "--coco", out / "r.json") == 1
    assert f"interrupted after 1 frame; lost: 1 COCO result for '{out / 'r.json'}'" in caplog.text
    assert f"'{out / 'p.jsonl.part'}' keeps 1 finished line of the run that ended early" in caplog.text
    assert names_in(out) == ["0.png", "p.jsonl.part"] and len(lines_of(out / "p.jsonl.part")) == 1


def test_ctrl_c_in_a_video_leaves_no_video(small_engine, clip, tmp_path, monkeypatch, caplog):
    real = sinks.VideoFile.write

    def interrupted(self, picture, time_ms):
        real(self, picture, time_ms)
        if self._count == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(sinks.VideoFile, "write", interrupted)
    assert predict(small_engine, clip, "--save", tmp_path / "out") == 1
    assert f"interrupted after 3 frames; lost: the unfinished '{tmp_path / 'out' / 'clip.mp4'}'" in caplog.text
    assert names_in(tmp_path / "out") == []


class FullDisk:
    """`Path.open('w')` and `write_bytes` on a disk that takes 64 bytes more."""

    def __init__(self, monkeypatch):
        real = Path.open

        def open_full(path, mode="r", *rest, **options):
            file = real(path, mode, *rest, **options)
            if "w" in mode:
                file.write = self.refuse
            return file

        monkeypatch.setattr(Path, "open", open_full)

    @staticmethod
    def refuse(_):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("what", ["--save", "--jsonl", "--coco"])
def test_a_full_disk_leaves_nothing(small_engine, photos, tmp_path, monkeypatch, capsys, what):
    target = tmp_path / "out"
    real_bytes = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda path, data: real_bytes(path, data[:64]) and FullDisk.refuse(data))
    monkeypatch.setattr(Path, "write_text", lambda *_, **__: FullDisk.refuse(""))
    FullDisk(monkeypatch)
    assert predict(small_engine, photos, what, target if what == "--save" else target / "file") == 1
    assert "cannot be written (No space left on device); make room" in capsys.readouterr().err
    assert names_in(target) == []


def test_a_picture_of_an_unknown_ending_is_refused(tmp_path):
    with pytest.raises(sinks.OutputError, match=r"a\.xyz' cannot be encoded .*choose an ending such as \.jpg"):
        sinks.write_picture(tmp_path / "a.xyz", noise(0))
    assert names_in(tmp_path) == []


def test_a_video_that_lost_frames_is_no_video(tmp_path):
    with (
        pytest.raises(sinks.OutputError, match="only 2 of 3 frames arrived"),
        sinks.VideoFile(tmp_path / "v.mp4", 25) as video,
    ):
        for index in range(2):
            video.write(noise(index))
        video._count += 1  # as if the disk had swallowed one
    assert names_in(tmp_path) == []


def test_an_old_result_outlives_a_failed_run(small_engine, photos, tmp_path, monkeypatch):
    def full(path, _):
        raise sinks.OutputError(f"'{path}' cannot be written")

    monkeypatch.setattr(sinks, "write_picture", full)
    lines = write(tmp_path / "p.jsonl", "old\n")
    assert predict(small_engine, photos, "--save", tmp_path / "out", "--jsonl", lines) == 1
    assert lines.read_text() == "old\n" and len(lines_of(tmp_path / "p.jsonl.part")) == 1


@pytest.mark.parametrize("option", ["--save", "--coco", "--jsonl"])
def test_a_place_that_takes_no_result_is_told_before_the_first_frame(small_engine, photos, tmp_path, capsys, option):
    (tmp_path / "file").write_text("")
    before = names_in(tmp_path)
    assert predict(small_engine, photos, option, tmp_path / "file" / "out") == 1
    told = capsys.readouterr()
    assert "cannot be written (Not a directory); make room or choose another place" in told.err and told.out == ""
    assert names_in(tmp_path) == before


OVERWRITING = {  # words, of photos with a boxes file among them -> message
    "a source": (["--coco", "1.png"], "--coco would overwrite the input '"),
    "the boxes": (["--boxes", "b.csv", "--jsonl", "b.csv"], "--jsonl would overwrite the input '"),
    "one for both": (["--jsonl", "same", "--coco", "same"], "--coco and --jsonl would both be written to '"),
    "the unfinished lines": (
        ["--jsonl", "p", "--coco", "p.part"],
        "--coco and --jsonl, unfinished, would both be written",
    ),
    "a saved picture": (["--save", "out", "--coco", "out/1.png"], "and --coco would both be written to '"),
}


@pytest.mark.parametrize(("words", "message"), OVERWRITING.values(), ids=OVERWRITING)
def test_results_replace_nothing_that_is_read_or_written(small_engine, photos, monkeypatch, capsys, words, message):
    write(photos / "b.csv", "file,x1,y1,x2,y2\n0.png,1,2,31,42\n")
    monkeypatch.chdir(photos)
    before = {path: path.read_bytes() for path in photos.iterdir()}
    assert predict(small_engine, photos, *words) == 2
    assert message in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in photos.iterdir()}


def test_results_do_not_replace_the_engine(small_engine, photos, capsys):
    assert predict(small_engine, photos, "--coco", small_engine / "engine.json") == 2
    assert "--coco would overwrite the input" in capsys.readouterr().err


def test_a_stream_may_be_saved_under_its_own_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stream = Source(Path("walk.mp4"), "video", address="http://server/walk.mp4")
    assert AnnotatedCopies([stream], Path()).places == {stream: Path("walk.mp4")}


def test_many_sources_are_not_compared_with_each_other(tmp_path, monkeypatch):
    sources = [Source(tmp_path / f"{number}.png", "image") for number in range(500)]
    compared = []
    real = PurePath.__eq__
    monkeypatch.setattr(PurePath, "__eq__", lambda *paths: (compared.append(1), real(*paths))[1])
    assert len(AnnotatedCopies(sources, tmp_path / "out").places) == 500
    assert len(compared) < 5 * 500


USAGE = {  # words -> exit status, message
    "boxes and detector": (
        ["--boxes", "b.csv", "--detector", "d.onnx"],
        2,
        "--boxes and --detector exclude each other",
    ),
    "detect seldom, pictures": (
        ["--detector", "d.onnx", "--detect-every", "3"],
        2,
        "--detect-every 3 needs a video to follow persons in, and no --no-track; leave it out",
    ),
    "detect seldom, no detector": (["--detect-every", "3"], 2, "--detect-every 3 needs a --detector; give one"),
    "smooth pictures": (
        ["--smooth"],
        2,
        "--smooth needs a video to follow persons in, and no --no-track; leave it out",
    ),
    "no frames": (["--max-frames", "0"], 2, "--max-frames must be at least 1 (got 0)"),
    "a file for a folder": (["--save", __file__], 2, "--save must name a folder (got the file '"),
    "missing detector": (["--detector", "none.onnx"], 1, "detector 'none.onnx' does not exist"),
    "another device": (["--device", "gpu"], 1, "device must be 'auto', 'cpu', 'cuda' or 'cuda:N'"),
}


@pytest.mark.parametrize(("words", "status", "message"), USAGE.values(), ids=USAGE)
def test_options_that_cannot_be_are_told_on_stderr(small_engine, photos, capsys, words, status, message):
    assert predict(small_engine, photos, *words) == status
    captured = capsys.readouterr()
    assert message in captured.err and captured.out == ""


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "half"])
@pytest.mark.parametrize("option", ["--threshold", "--box-threshold"])
def test_a_threshold_is_a_finite_number(small_engine, photos, capsys, option, value):
    with pytest.raises(SystemExit) as ended:
        predict(small_engine, photos, f"{option}={value}")
    assert ended.value.code == 2
    assert f"argument {option}: must be a finite number (got '{value}')" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "often"])
def test_turns_are_whole_or_auto(small_engine, photos, capsys, value):
    with pytest.raises(SystemExit) as ended:
        predict(small_engine, photos, f"--detect-every={value}")
    assert ended.value.code == 2
    told = f"argument --detect-every: must be a whole number of at least 1, or auto (got '{value}')"
    assert told in capsys.readouterr().err


def test_a_verb_without_its_words_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["predict"])
    assert ended.value.code == 2
