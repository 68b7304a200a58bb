"""`sdk annotate` on one process: rows against a plain loop, restarts, what cannot be read, what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from sdk import PoseEstimator
from sdk.cli import main
from sdk.errors import InputError, OutputError, SdkError, UsageError
from sdk.media.sources import read_image
from sdk.people.detector import Detector
from sdk.scale import annotating
from sdk.scale.annotating import annotate
from sdk.scale.carried import carried_from
from sdk.scale.estimating import How
from sdk.scale.job import Job, key_of_engine
from tests.support.archives import check_rows, looped, rows_in, run, stopping, write_archive, write_shard
from tests.support.full_disk import full_disk
from tests.support.predict import noise

pa = pytest.importorskip("pyarrow")
pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.native

BOXES = {f"{index:03d}.jpg": [[5, 5, 60, 80], [30.5, 2, 118, 88]][: 1 + index % 2] for index in range(10)}


@pytest.fixture
def archive(tmp_path):
    return write_archive(tmp_path / "archive", 10)


def boxes_csv(path):
    lines = [f"{name},{','.join(map(str, box))}" for name, boxes in BOXES.items() for box in boxes]
    path.write_text("\n".join(["file,x1,y1,x2,y2", *lines]))
    return path


def test_rows_are_a_loops_to_the_bit(small_engine, archive, tmp_path):
    report = run(small_engine, tmp_path / "out", archive)
    check_rows(rows_in(tmp_path / "out"), looped(sorted(archive.iterdir()), small_engine))
    assert (report.frames, report.persons, report.errors, report.blocks) == (10, 10, 0, 3)


def test_boxes_of_a_file(small_engine, archive, tmp_path):
    run(small_engine, tmp_path / "out", archive, boxes=boxes_csv(tmp_path / "boxes.csv"))
    check_rows(rows_in(tmp_path / "out"), looped(sorted(archive.iterdir()), small_engine, BOXES))


def test_rows_of_a_boxes_file_that_are_no_box_are_told(small_engine, archive, tmp_path, caplog):
    path = boxes_csv(tmp_path / "boxes.csv")
    path.write_text(path.read_text() + "\n" + "\n".join(f"00{index}.jpg,9,9,2,80" for index in range(7)))
    report = run(small_engine, tmp_path / "out", archive, boxes=path)
    check_rows(rows_in(tmp_path / "out"), looped(sorted(archive.iterdir()), small_engine, BOXES))
    told = [record.getMessage() for record in caplog.records if record.name == "sdk.scale.lists"]
    assert [f"line {line}: the box has no area" in text for line, text in zip(range(17, 22), told, strict=False)] == [
        True
    ] * 5
    assert all(text.endswith("the row is left out") for text in told[:5])
    assert told[5:] == [f"7 rows of '{path}' left out: no box"]
    assert report.errors == 0


def test_a_row_says_all_of_a_person(small_engine, archive, tmp_path):
    run(small_engine, tmp_path / "out", archive, boxes=boxes_csv(tmp_path / "boxes.csv"))
    row = rows_in(tmp_path / "out").to_pylist()[2]
    with PoseEstimator(small_engine, device="cpu", threads=1) as estimate:
        poses = estimate(read_image(archive / "001.jpg"), BOXES["001.jpg"])
        key = row.pop("engine")
    joints = np.concatenate([poses.keypoints, poses.scores[..., None]], axis=2)
    assert row.pop("joints") == joints[1].tolist()
    assert row.pop("score") == pytest.approx(float(poses.scores[1].mean()), rel=1e-6)
    assert len(key) == 16
    assert row == {
        "source": str(archive / "001.jpg"),
        "frame": 0,
        "time_ms": None,
        "segment": None,
        "image_id": 2,
        "width": 120,
        "height": 100,
        "person": 1,
        "id": None,
        "box": [30.5, 2.0, 118.0, 88.0],
        "box_score": 1.0,
        "error": None,
    }


def test_any_reader_of_parquet_takes_the_folder_and_its_schema_is_told(small_engine, archive, tmp_path):
    import pyarrow.parquet as pq

    run(small_engine, tmp_path / "out", archive)
    table = pq.read_table(tmp_path / "out")
    joints = len(PoseEstimator(small_engine, device="cpu").recipe.skeleton.joints)
    assert table.schema.field("joints").type == pa.list_(pa.list_(pa.float32(), 3), joints)
    assert table.schema.field("box").type == pa.list_(pa.float32(), 4)
    assert table.schema.metadata[b"sdk.schema"] == b"1"
    assert len(table.schema.metadata[b"sdk.joints"].split(b",")) == joints
    manifest = json.loads((tmp_path / "out/_annotate.json").read_text())
    assert (manifest["state"], manifest["counts"]["frames"], manifest["counts"]["blocks"]) == ("done", 10, 3)
    assert len((tmp_path / "out/_blocks.csv").read_text().splitlines()) == 4


def test_a_bad_picture_is_a_row_with_its_error_and_nobody_is_a_row_too(small_engine, tmp_path):
    archive = write_archive(tmp_path / "archive", 6, bad=(0, 4))
    (archive / "003.jpg").write_bytes(b"")
    csv = tmp_path / "boxes.csv"
    csv.write_text("file,x1,y1,x2,y2\n001.jpg,1,1,50,60\n")
    report = run(small_engine, tmp_path / "out", archive, boxes=csv)
    rows = rows_in(tmp_path / "out").to_pylist()
    assert [row["error"] for row in rows] == [
        "not an image that OpenCV reads", None, None, "the file is empty", "not an image that OpenCV reads", None
    ]  # fmt: skip
    assert [row["person"] for row in rows] == [None, 0, None, None, None, None]
    assert (report.frames, report.persons, report.errors) == (6, 1, 3)


def test_a_picture_that_the_estimator_refuses_costs_no_other(small_engine, archive, tmp_path):
    """Boxes that are shares of the picture are refused, for the pictures that have them."""
    csv = tmp_path / "list.csv"
    lines = [f"{archive.name}/00{i}.jpg,1,1,50,60" for i in range(3)]
    lines.insert(1, f"{archive.name}/005.jpg,0.1,0.1,0.5,0.9")
    csv.write_text("\n".join(["path,x1,y1,x2,y2", *lines]))
    run(small_engine, tmp_path / "out", csv)
    errors = rows_in(tmp_path / "out")["error"].to_pylist()
    assert [error is None for error in errors] == [True, False, True, True]
    assert "pixels of the frame" in errors[1]


@pytest.mark.parametrize("after", range(5))
def test_a_run_that_ended_early_goes_on_and_its_rows_are_those_of_one_undisturbed(
    small_engine, archive, tmp_path, after
):
    job = Job((str(archive),), tmp_path / "out", How(str(small_engine), device="cpu", threads=1), block=4, batch=3)
    with pytest.raises(KeyboardInterrupt):
        annotate(job, stopping(after))
    finished = {path.name: path.stat().st_ino for path in (tmp_path / "out").glob("*.parquet")}
    report = annotate(job)
    assert report.found == len(finished) == after // 2
    assert {name: (tmp_path / "out" / name).stat().st_ino for name in finished} == finished
    run(small_engine, tmp_path / "whole", archive)
    assert rows_in(tmp_path / "out").equals(rows_in(tmp_path / "whole"))
    assert not (tmp_path / "out/_plan.jsonl.gz").exists()


def test_pictures_that_came_went_or_changed_are_done_and_the_rest_is_found(small_engine, archive, tmp_path):
    run(small_engine, tmp_path / "out", archive)
    (archive / "009.jpg").unlink()
    (archive / "005.jpg").write_bytes((archive / "001.jpg").read_bytes())
    report = run(small_engine, tmp_path / "out", archive)
    assert (report.found, report.blocks) == (1, 3)
    check_rows(rows_in(tmp_path / "out"), looped(sorted(archive.iterdir()), small_engine))
    assert len(list((tmp_path / "out").glob("*.parquet"))) == 3


def test_errors_are_done_again_when_that_is_asked_for(small_engine, tmp_path):
    archive = write_archive(tmp_path / "archive", 8, bad=(6,))
    other = tmp_path / "list.txt"
    other.write_text("\n".join(str(path) for path in sorted(archive.iterdir())))
    run(small_engine, tmp_path / "out", other)
    (archive / "006.jpg").write_bytes((archive / "000.jpg").read_bytes())
    assert run(small_engine, tmp_path / "out", other).found == 2
    report = run(small_engine, tmp_path / "out", other, retry_errors=True)
    assert (report.found, report.errors) == (1, 0)
    assert rows_in(tmp_path / "out")["error"].null_count == 8


def test_a_file_that_a_lost_machine_left_cut_is_done_again(small_engine, archive, tmp_path):
    run(small_engine, tmp_path / "out", archive)
    block = sorted((tmp_path / "out").glob("*.parquet"))[1]
    block.write_bytes(block.read_bytes()[:-20])
    assert run(small_engine, tmp_path / "out", archive).found == 2


def test_a_full_disk_stops_the_run_in_words_and_what_is_done_stays(small_engine, archive, tmp_path):
    with full_disk(2500), pytest.raises(OutputError, match="cannot be written"):
        run(small_engine, tmp_path / "out", archive)
    assert list((tmp_path / "out").glob("*.parquet")) == []
    run(small_engine, tmp_path / "out", archive)
    check_rows(rows_in(tmp_path / "out"), looped(sorted(archive.iterdir()), small_engine))


def test_coco_results_are_those_of_the_poses(small_engine, archive, tmp_path):
    run(small_engine, tmp_path / "out", archive, coco=tmp_path / "results.json")
    results = json.loads((tmp_path / "results.json").read_text())
    with PoseEstimator(small_engine, device="cpu", threads=1) as estimate:
        expected = [
            record
            for number, path in enumerate(sorted(archive.iterdir()), 1)
            for record in estimate(read_image(path)).to_coco(number)
        ]
    for record in [*results, *expected]:
        record["score"] = pytest.approx(record["score"], rel=1e-6)
    assert results == expected


def other_job(engine, archive, out):
    run(engine, out, archive)
    run(engine, out, archive, batch=2)


def other_files(engine, archive, out):
    run(engine, archive, archive)


def shards_to_coco(engine, archive, out):
    run(engine, out, write_shard(archive / "a.tar", 1), coco=out.parent / "c.json")


REFUSED = {
    "nothing": (lambda e, a, o: run(e, o), UsageError, "at least one source"),
    "an empty block": (lambda e, a, o: run(e, o, a, block=0), UsageError, "--block must be at least 1"),
    "an absent source": (lambda e, a, o: run(e, o, a / "none"), InputError, "does not exist"),
    "an empty folder": (
        lambda e, a, o: run(e, o, (o.parent / "empty").mkdir() or o.parent / "empty"),
        InputError,
        "holds no picture",
    ),
    "a live stream": (lambda e, a, o: run(e, o, "rtsp://cam/1"), InputError, "live stream"),
    "an unknown store": (lambda e, a, o: run(e, o, "nosuch://x/y.jpg"), InputError, "no store that fsspec knows"),
    "another job's rows": (other_job, UsageError, "another job's rows .batch 3, now 2."),
    "other files": (other_files, UsageError, "holds other files"),
    "ids of shards": (shards_to_coco, UsageError, "tar shards have none"),
    "two ways to boxes": (
        lambda e, a, o: run(e, o, a, boxes=a / "000.jpg", how={"detector": "x"}),
        UsageError,
        "exclude each other",
    ),
    "an absent engine": (lambda e, a, o: run(a / "engine", o, a), SdkError, "neither a folder nor a bundled"),
}


@pytest.mark.parametrize(("call", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(small_engine, archive, tmp_path, call, error, message):
    with pytest.raises(error, match=message):
        call(small_engine, archive, tmp_path / "out")


def test_a_job_that_fails_before_its_first_row_claims_no_folder(small_engine, archive, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(InputError, match="does not exist"):
        run(small_engine, out, archive / "none")
    assert not list(out.iterdir())
    run(small_engine, out, archive, batch=3)
    with pytest.raises(InputError, match="does not exist"), pytest.MonkeyPatch.context() as patch:
        patch.setattr("sdk.scale.job.Job.listing", lambda *_: (_ for _ in ()).throw(InputError("does not exist")))
        run(small_engine, out, archive, batch=3)
    assert (out / "_annotate.json").exists(), "rows are there"


def test_the_verb_tells_what_was_done(small_engine, archive, tmp_path, capsys, caplog):
    (archive / "notes.md").write_text("")
    (archive / "000.jpg").write_text("")
    words = ["annotate", archive, archive / "001.jpg", "--output", tmp_path / "out", "--engine", small_engine]
    words += ["--device", "cpu", "--json"]
    assert main([str(word) for word in words]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["frames"], told["persons"], told["errors"]) == (10, 9, 1)
    assert told["passed_over"] == {"other files": 1, "duplicates": 1}
    assert "9 persons in 10 pictures, 1 of them with an error" in caplog.text
    assert "started in" in caplog.text and " 0.0 a second" not in caplog.text


def test_coco_results_in_the_current_folder_are_written_again_with_the_bundled_engine(tmp_path, monkeypatch):
    write_archive(tmp_path / "archive", 2)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(["annotate", "archive", "--output", "out", "--coco", "results.json", "--device", "cpu"]) == 0
    assert len(json.loads((tmp_path / "results.json").read_text())) == 2


def test_an_archive_of_which_nothing_can_be_read_fails(small_engine, tmp_path):
    archive = write_archive(tmp_path / "archive", 2, bad=(0, 1))
    words = ["annotate", archive, "--output", tmp_path / "out", "--engine", small_engine, "--device", "cpu"]
    assert main([str(word) for word in words]) == 1


def test_a_run_that_reads_only_bad_pictures_after_a_better_one_does_not_fail(small_engine, tmp_path):
    archive = write_archive(tmp_path / "archive", 3, bad=(2,))
    words = ["annotate", archive, "--output", tmp_path / "out", "--engine", small_engine, "--device", "cpu"]
    words = [str(word) for word in (*words, "--block", 2)]
    assert main(words) == 0
    (archive / "002.jpg").write_bytes(b"no picture either")
    assert main(words) == 0


def test_progress_tells_of_how_many_how_fast_and_how_long(small_engine, archive, tmp_path):
    from sdk.cli.annotate import progress_line

    lines = []
    job = Job((str(archive),), tmp_path / "out", How(str(small_engine), device="cpu", threads=1), block=4, batch=3)
    annotating.annotate(job, progress=lambda report, plan: lines.append(progress_line(report, plan)))
    assert lines[1].startswith("4 pictures of 10 (40 %), ")
    assert lines[1].endswith(" left")
    assert "4 persons, 0 errors, " in lines[1]


def test_a_terminals_line_of_progress_is_ended(small_engine, archive, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("sdk.cli.annotate.EVERY_S", 0.0)
    words = ["annotate", archive, "--output", tmp_path / "out", "--engine", small_engine, "--device", "cpu"]
    assert main([str(word) for word in words]) == 0
    told = capsys.readouterr().err
    assert told.rpartition("\x1b[K")[2].startswith("10 pictures of 10 (100 %)")
    assert "00:00 left\n" in told


@pytest.fixture
def detector(tmp_path):
    pytest.importorskip("onnx")
    from tests.support.detector_graphs import rtmdet

    return rtmdet(tmp_path / "detector.onnx")


def test_persons_of_a_detector_are_a_loops_to_the_bit(small_engine, archive, tmp_path, detector):
    report = run(small_engine, tmp_path / "out", archive, how={"detector": str(detector)})
    joints, boxes, sources = [], [], []
    with PoseEstimator(str(small_engine), device="cpu", threads=1, detector=Detector(detector)) as estimate:
        for path in sorted(archive.iterdir()):
            poses = estimate(read_image(path))
            joints.append(np.concatenate([poses.keypoints, poses.scores[..., None]], axis=2))
            boxes.append(poses.boxes)
            sources += [str(path)] * len(poses)
    assert report.persons == len(sources) == 30
    check_rows(rows_in(tmp_path / "out"), (np.concatenate(joints), np.concatenate(boxes), sources))


def test_the_verb_fetches_a_published_detector_before_it_works(archive, tmp_path, monkeypatch, capsys):
    fetched = []
    monkeypatch.setenv("SIMCC_EDGE_SDK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sdk.networks.weights_file", lambda recipe: fetched.append(recipe.name))
    assert main(["annotate", str(archive), "--output", str(tmp_path / "out"), "--detector", "yolox-nano-416"]) == 1
    assert fetched == ["yolox-nano-416"]
    assert "detector 'yolox-nano-416' is not on this machine yet" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_a_job_opens_travels_with_it(small_engine, tmp_path, detector):
    from sdk.runtime.opening import engine_from

    engine, folder = engine_from(str(small_engine)), tmp_path / "there"
    how = carried_from(engine, None).laid(folder, How("elsewhere"))
    assert key_of_engine(engine_from(how.engine)) == key_of_engine(engine)
    assert how.detector is None
    how = carried_from(engine, str(detector)).laid(folder, How("elsewhere", detector=str(detector)))
    assert Path(how.detector) == folder / "detector" / "detector.onnx"
    assert Path(how.detector).read_bytes() == detector.read_bytes()
    detector.rename((tmp_path / "d").mkdir() or tmp_path / "d" / "detector.onnx")
    how = carried_from(engine, str(tmp_path / "d")).laid(tmp_path / "more", How(detector=str(tmp_path / "d")))
    assert Path(how.detector) == tmp_path / "more" / "detector"
    assert len(Detector(how.detector)(noise(0, (128, 128)))[0]) == 3


def test_a_published_detector_is_kept_where_it_comes(small_engine, tmp_path, detector, monkeypatch):
    from sdk.detector_recipe import detector_by_name
    from sdk.resources import CACHE_VARIABLE, released_path
    from sdk.runtime.opening import engine_from

    url = detector_by_name("yolox-nano-416").weights.url
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "here"))
    released_path(url).parent.mkdir(parents=True)
    detector.rename(released_path(url))
    carried = carried_from(engine_from(str(small_engine)), "yolox-nano-416")
    content = released_path(url).read_bytes()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "there"))
    assert carried.laid(tmp_path / "job", How(detector="yolox-nano-416")).detector == "yolox-nano-416"
    assert released_path(url).read_bytes() == content
