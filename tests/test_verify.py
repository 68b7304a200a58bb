"""`sdk verify`: the loop across pictures, what is left out, comparing two engines, and the verb."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from sdk.cli import main
from sdk.errors import DatasetError, InputError
from sdk.evaluate.datasets.dataset import DatasetOptions
from sdk.evaluate.datasets.loading import load_dataset
from sdk.evaluate.pages.report import markdown, report_table
from sdk.evaluate.pages.verify_page import html_page
from sdk.evaluate.predictions.journal import Journal
from sdk.evaluate.predictions.predict import BatchRunner, PictureRunner, _check_same_crops, open_runners, predict
from sdk.evaluate.scores import reliability
from sdk.evaluate.scores.comparison import bins_moved, bootstrap_drop
from sdk.evaluate.verify import VerifyOptions, verify
from sdk.manifest import SpreadNote, open_engine
from sdk.people.estimator import PoseEstimator
from sdk.runtime.opening import open_pipeline
from sdk.skeletons import skeleton_by_name
from sdk.toolchain.engine import keep_spread
from tests.support.engines import BODY14, SMALL, pooled_simcc_graph, wrapped_engine
from tests.support.pictures import vast_png
from tests.support.verify import PERSONS_IN, options, write_annotated

pytestmark = pytest.mark.native
cv2 = pytest.importorskip("cv2")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("pycocotools")


@pytest.fixture(scope="module")
def other_engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("other")
    return wrapped_engine(pooled_simcc_graph(folder / "g.onnx", SMALL, seed=1), folder / "other", SMALL)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return write_annotated(tmp_path_factory.mktemp("pictures"))


def estimated(engine, folder, **settings):
    """The same persons through the estimator, picture by picture."""
    dataset = load_dataset(DatasetOptions("lsp", folder / "annotations.json", folder), SMALL)
    parts = []
    with PoseEstimator(engine, device="cpu", **settings) as estimate:
        for position, picture in enumerate(dataset.pictures):
            boxes = dataset.boxes_xyxy[dataset.picture == position]
            poses = estimate(cv2.imread(str(picture.path)), boxes)
            parts.append(np.concatenate([poses.keypoints, poses.scores[..., None]], axis=2))
    return np.concatenate(parts)


@pytest.mark.parametrize("flip", [False, True], ids=["plain", "flip"])
def test_batches_across_pictures_equal_the_estimator(small_engine, photographs, flip):
    found = verify(options(small_engine, photographs, flip_test=flip))
    assert found.persons.shape == (sum(PERSONS_IN), 1, 14, 3)
    np.testing.assert_allclose(found.persons[:, 0], estimated(small_engine, photographs, flip_test=flip), atol=1e-3)


@pytest.mark.parametrize("kind", ["simcc", "heatmap"])
def test_a_picture_runner_gives_what_a_batch_runner_gives(small_graphs, photographs, tmp_path, kind):
    graph, recipe = small_graphs[kind]
    folder = wrapped_engine(graph, tmp_path / kind, recipe)
    dataset = load_dataset(DatasetOptions("lsp", photographs / "annotations.json", photographs), recipe)
    found = []
    for make in (BatchRunner, PictureRunner):
        with open_pipeline(folder, "cpu") as pipeline, Journal.open(None, {}, (1, 14, 3)) as journal:
            persons, timing, _ = predict(dataset, [make(pipeline, flip=False)], journal, workers=2)
        found.append(persons)
        assert timing.persons == len(dataset) and sum(count for _, count in timing.network_ms) == len(dataset)
    np.testing.assert_allclose(found[0], found[1], atol=1e-3)


def test_batches_are_full_although_pictures_hold_few_persons(small_engine, photographs):
    runs = verify(options(small_engine, photographs)).timing.network_ms
    assert [count for _, count in runs] == [8, 8, 8, 8]  # the engine's largest batch; 32 persons in all


@pytest.fixture
def perfect(small_engine, photographs, tmp_path):
    """Annotations that are the engine's own predictions."""
    table = json.loads((photographs / "annotations.json").read_text())
    for record, joints in zip(table["annotations"], estimated(small_engine, photographs), strict=True):
        record["keypoints"] = [float(v) for x, y, _ in joints for v in (x, y, 2)]
    path = tmp_path / "perfect.json"
    path.write_text(json.dumps(table))
    return path


def test_perfect_predictions_give_100_in_every_figure(small_engine, photographs, perfect):
    found = verify(options(small_engine, photographs, perfect, nms="none"))
    known = {name: value for name, value in found.scores[0].figures.items() if not np.isnan(value)}
    assert {"PCK@0.2", "PCK@0.1", "AP", "AR"} <= set(known)
    assert all(value == pytest.approx(100, abs=1e-3) for value in known.values()), known
    assert np.nanmin(found.scores[0].person_quality) > 0.999


SPOILT = {
    "no-picture": (b"this is no picture", "not an image that OpenCV reads"),
    "empty": (b"", "the file is empty"),
    "cut-off": (None, None),
    "vast": (vast_png(), "at most 16384 pixels a side"),
    "another-size": (np.zeros((50, 40, 3), np.uint8), "size is not the annotated one"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_spoilt_picture_is_left_out_with_its_truth(small_engine, photographs, perfect, tmp_path, case):
    content, reason = SPOILT[case]
    for path in photographs.glob("*.png"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    victim = tmp_path / "4.png"
    if isinstance(content, np.ndarray):
        cv2.imwrite(str(victim), content)
    else:
        victim.write_bytes(victim.read_bytes()[:40] if content is None else content)
    found = verify(options(small_engine, tmp_path, perfect, nms="none"))
    assert len(found.persons) == sum(PERSONS_IN) - PERSONS_IN[4]
    assert found.scores[0].figures["AP"] == pytest.approx(100, abs=1e-3)  # not counted as missed
    [line] = found.dataset.problems.lines()
    assert "left out of every figure: 1 (4.png)" in line and (reason or "") in line


def test_no_readable_picture_is_refused(small_engine, photographs, tmp_path):
    for n in range(len(PERSONS_IN)):
        (tmp_path / f"{n}.png").write_bytes(b"no")
    with pytest.raises(DatasetError, match=r"no picture of .* could be used"):
        verify(options(small_engine, tmp_path, photographs / "annotations.json"))


class CountingRunner(BatchRunner):
    """Counts pictures that are prepared and not yet run."""

    held = most = 0

    def prepare(self, frame, affines):
        CountingRunner.held += 1
        CountingRunner.most = max(CountingRunner.most, CountingRunner.held)
        return super().prepare(frame, affines)

    def infer(self, prepared, affines, timing):
        CountingRunner.held = 0
        return super().infer(prepared, affines, timing)


def test_few_pictures_are_in_memory(small_engine, photographs, tmp_path):
    table = json.loads((photographs / "annotations.json").read_text())
    one = next(a for a in table["annotations"] if a["image_id"] == 10)
    images = [{"id": n, "file_name": "0.png"} for n in range(200)]
    many = [{**one, "id": n + 1, "image_id": n} for n in range(200)]
    path = tmp_path / "many.json"
    path.write_text(json.dumps({"images": images, "annotations": many, "categories": []}))
    dataset = load_dataset(DatasetOptions("lsp", path, photographs), SMALL)
    with open_pipeline(small_engine, "cpu") as pipeline, Journal.open(None, {}, (1, 14, 3)) as journal:
        runner = CountingRunner(pipeline, flip=False)
        predict(dataset, [runner], journal, workers=2)
    # a batch of pictures with one person each, 2 x workers + 1 submitted, one that is waited for
    assert CountingRunner.most <= runner.batch + (2 * 2 + 1) + 1


def test_an_engine_against_itself_moves_nothing(small_engine, photographs):
    found = verify(options(small_engine, photographs, against=small_engine, max_drop=0.0))
    assert found.passed and found.comparison.drop == 0 and found.comparison.interval == (0, 0)
    assert found.comparison.moved_share == 0 and found.comparison.distance_quantiles_px["max"] == 0


def test_a_worse_engine_falls_and_its_interval_holds_the_drop(small_engine, other_engine, photographs, perfect):
    found = verify(options(other_engine, photographs, perfect, against=small_engine, max_drop=0.5, nms="none"))
    comparison = found.comparison
    assert comparison.reference == pytest.approx(100, abs=1e-3) and comparison.drop > 20 and not found.passed
    assert comparison.interval[0] - 1e-9 <= comparison.drop <= comparison.interval[1] + 1e-9
    assert comparison.moved_share > 80
    turned = verify(options(small_engine, photographs, perfect, against=other_engine, nms="none"))
    assert turned.passed  # better is never a drop
    again = verify(options(other_engine, photographs, perfect, against=small_engine, nms="none"))
    assert again.comparison.interval == comparison.interval


def test_the_interval_is_the_middle_95_per_cent():
    values = iter(range(1001))
    ours = SimpleNamespace(resampled=lambda _: 0.0, lower_is_better=False)
    reference = SimpleNamespace(resampled=lambda _: next(values))
    assert bootstrap_drop(ours, reference, 3, 1001) == pytest.approx((25.0, 975.0))


UNLIKE = {  # what another engine has -> how it is told
    "padding": ({"input": replace(SMALL.input, box_padding=1.0)}, "box padding 1.25 and 1"),
    "colours": (
        {"input": replace(SMALL.input, mean=(0.0, 0.0, 0.0), colour="bgr")},
        "mean .* and 0, 0, 0; colour order",
    ),
    "joints": ({"skeleton": skeleton_by_name("coco17")}, "14 and 17 joints"),
    "order": (
        {"skeleton": replace(SMALL.skeleton, joints=SMALL.skeleton.joints[::-1])},
        f"joints {SMALL.skeleton.joints[0]} and {SMALL.skeleton.joints[-1]}, ",
    ),
}


@pytest.mark.parametrize(("changes", "told"), UNLIKE.values(), ids=UNLIKE)
def test_engines_with_other_crops_cannot_share_them(changes, told):
    ours, theirs = SimpleNamespace(recipe=SMALL), SimpleNamespace(recipe=replace(SMALL, name="other-64x48", **changes))
    with pytest.raises(
        InputError, match=f"compared on the same crops.*'small-64x48' and 'other-64x48' differ: {told}"
    ) as got:
        _check_same_crops([ours, theirs])
    assert "Input(" not in str(got.value)


def test_engines_with_other_crops_are_refused(small_engine, small_graphs, photographs, tmp_path):
    other = replace(SMALL, input=replace(SMALL.input, box_padding=1.0))
    folder = wrapped_engine(small_graphs["simcc"][0], tmp_path / "padding", other)
    with pytest.raises(InputError, match="compared on the same crops"):
        verify(options(small_engine, photographs, against=folder))


def test_reports_do_not_replace_what_is_read(small_engine, photographs, capsys):
    annotations = photographs / "keypoints.json"
    annotations.write_bytes((photographs / "annotations.json").read_bytes())
    words = ["--dataset", "lsp", "--annotations", annotations, "--images", photographs, "--output", photographs]
    assert main(["verify", str(small_engine), *map(str, words)]) == 2
    assert "--output (keypoints.json) would overwrite the input" in capsys.readouterr().err
    assert annotations.read_bytes() == (photographs / "annotations.json").read_bytes()


def test_movement_is_counted_in_bins(small_engine, photographs):
    dataset = load_dataset(DatasetOptions("lsp", photographs / "annotations.json", photographs), SMALL)
    ours = np.zeros((len(dataset), 14, 3), np.float32)
    theirs = ours.copy()
    theirs[0, 3, :2] = (3.0, -6.0)
    moved = bins_moved(dataset, ours, theirs, SMALL)
    width, height = (dataset.boxes_xyxy[0, 2:] - dataset.boxes_xyxy[0, :2]) * 1.25
    frame_px_a_bin = max(width / 48, height / 64) / 2  # crops of 48 x 64, two bins a pixel
    assert moved[0, 3] == pytest.approx(6.0 / frame_px_a_bin, rel=1e-5)
    assert np.count_nonzero(moved) == 1


def test_random_weights_and_a_missing_flip_test_are_said(small_graphs, photographs, tmp_path):
    from sdk.manifest import WeightsNote
    from sdk.recipe import Protocol, Published

    published = (Published("coco-val2017", "AP", 70.0, "detected", "the paper"),)
    recipe = replace(SMALL, protocol=Protocol(flip_test=True, flip_shift=False), published=published)
    folder = wrapped_engine(small_graphs["simcc"][0], tmp_path / "r", recipe, weights=WeightsNote("random", "seed 0"))
    notes = " ".join(verify(options(folder, photographs)).notes)
    assert "random weights" in notes and "--flip-test" in notes


def test_persons_that_ap_cannot_rank_are_said(small_engine, small_graphs, photographs, tmp_path):
    recipe = replace(SMALL, protocol=replace(SMALL.protocol, joint_threshold=1000.0))
    folder = wrapped_engine(small_graphs["simcc"][0], tmp_path / "deaf", recipe)
    [note] = verify(options(folder, photographs)).notes
    assert note.startswith("100 % of the persons of 'deaf' have no joint above its recipe's joint_threshold 1000:")
    assert verify(options(small_engine, photographs)).notes == ()


def test_figures_that_nobody_annotated_have_no_interval(small_engine, photographs, tmp_path, capsys):
    table = json.loads((photographs / "annotations.json").read_text())
    for record in table["annotations"]:
        record["keypoints"] = [0] * 42
    boxes = [{"image_id": 10, "bbox": [5, 5, 60, 60], "score": 0.9, "category_id": 1}]
    for name, content in (("annotations.json", table), ("boxes.json", boxes)):
        (tmp_path / name).write_text(json.dumps(content))
    for path in photographs.glob("*.png"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    words = ["--detections", tmp_path / "boxes.json", "--against", small_engine, "--samples", 5]
    assert verb(small_engine, tmp_path, *words) == 1
    assert "| drop | n/a (95 %: n/a to n/a) |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threads": 0}, "threads"),
        ({"samples": 0}, "samples"),
        ({"max_drop": -1.0}, "max_drop"),
        ({"max_drop": float("nan")}, "max_drop"),
    ],
)
def test_options_that_make_no_sense(small_engine, photographs, changes, message):
    with pytest.raises(InputError, match=message):
        replace(options(small_engine, photographs), **changes)


def verb(engine, folder, *more):
    annotations = ["--annotations", str(folder / "annotations.json"), "--images", str(folder)]
    return main(["verify", str(engine), "--dataset", "lsp", *annotations, "--device", "cpu", "-q", *map(str, more)])


def test_the_verb_writes_reports_and_prints_json(small_engine, photographs, tmp_path, capsys):
    assert verb(small_engine, photographs, "--json", "--output", tmp_path / "out") == 0
    shown = json.loads(capsys.readouterr().out)
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert shown["figures"] == written["figures"] and shown["headline"] == "PCK@0.2"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "report.json", "report.md", "report.html", "keypoints.json", "predictions.journal",
    }  # fmt: skip


def test_the_verb_exits_1_above_the_drop_and_on_bad_input(
    small_engine, other_engine, photographs, perfect, tmp_path, capsys
):
    (tmp_path / "annotations.json").write_bytes(perfect.read_bytes())
    for path in photographs.glob("*.png"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert verb(other_engine, tmp_path, "--against", small_engine, "--samples", 10) == 1
    assert "EXCEEDED" in capsys.readouterr().out
    assert verb(other_engine, tmp_path, "--against", small_engine, "--samples", 10, "--max-drop", 100) == 0
    assert verb(small_engine, tmp_path / "nowhere") == 1
    assert "sdk verify: the folder of images" in capsys.readouterr().err
    with pytest.raises(SystemExit) as usage:
        main(["verify", str(small_engine)])
    assert usage.value.code == 2


@pytest.mark.data
def test_the_trained_network_has_its_known_pck(shared, lspet, tmp_path):
    folder = wrapped_engine(shared / "models" / "body14-lspet-128x128.onnx", tmp_path / "body", BODY14, max_batch=16)
    dataset = DatasetOptions("lsp", lspet / "val.json", lspet)
    found = verify(VerifyOptions(folder, dataset, device="cpu", samples=10))
    # 40.25 and 16.71 with cv2.warpAffine's crops; a grey level of difference moves a few of 10,000 joints
    assert found.scores[0].figures["PCK@0.2"] == pytest.approx(40.25, abs=0.15)
    assert found.scores[0].figures["PCK@0.1"] == pytest.approx(16.71, abs=0.15)
    table = report_table(found)
    assert table["timing"]["persons_per_second"] > 0 and table["timing"]["persons"] == 1006


@pytest.mark.data
@pytest.mark.parametrize("kind", ["coco", "crowdpose", "mpii"])
def test_every_dataset_runs_through(shared, tmp_path, kind):
    from sdk.skeletons import skeleton_by_name

    names = {"coco": "coco17", "crowdpose": "crowdpose14", "mpii": "mpii16"}
    recipe = replace(SMALL, skeleton=skeleton_by_name(names[kind]), layout="mmpose")
    folder = wrapped_engine(pooled_simcc_graph(tmp_path / "g.onnx", recipe), tmp_path / "engine", recipe)
    samples = shared / "data" / "samples" / kind
    dataset = DatasetOptions(kind, samples / f"test_{kind}.json", samples)
    found = verify(VerifyOptions(folder, dataset, device="cpu", against=folder, samples=10))
    headline = "PCKh@0.5" if kind == "mpii" else "AP"
    assert found.scores[0].headline == headline and 0 <= found.scores[0].figures[headline] < 60
    assert found.scores[0].resampled(np.ones(len(found.dataset.pictures), int)) == pytest.approx(
        found.scores[0].figures[headline], abs=1e-6
    )


def test_engines_on_the_cpu_run_in_batches_and_a_mixed_pair_by_pictures(small_engine, photographs, monkeypatch):
    whole = verify(options(small_engine, photographs)).persons
    [runner] = open_runners([open_engine(small_engine)], ["cpu"], flip=False)
    assert isinstance(runner, BatchRunner) and runner.batch == 8
    runner.close()

    class Elsewhere:
        """A pipeline of another kind, as a GPU's is."""

        def __init__(self, pipeline):
            self.inner, self.engine, self.device = pipeline, pipeline.engine, "elsewhere"
            self.max_batch, self.run, self.close = pipeline.max_batch, pipeline.run, pipeline.close

    def opened(small_engine, device, **settings):
        pipeline = open_pipeline(small_engine, "cpu", **settings)
        return Elsewhere(pipeline) if device == "cuda" else pipeline

    monkeypatch.setattr("sdk.evaluate.predictions.predict.open_pipeline", opened)
    chosen = options(small_engine, photographs, against=small_engine)
    found = verify(replace(chosen, device="cuda", against_device="cpu"))
    assert found.devices == ("elsewhere", "cpu")
    np.testing.assert_allclose(found.persons[:, 0], whole[:, 0], atol=1e-3)
    np.testing.assert_array_equal(found.persons[:, 0], found.persons[:, 1])


def test_a_calibrated_spread_is_held_against_the_labels(small_engine, photographs, perfect, tmp_path, monkeypatch):
    """Of perfect predictions one spread holds all; the report and its page tell it. Others have no such part."""
    monkeypatch.setattr(reliability, "FEWEST", 20)
    note = SpreadNote(0.5, 1.0, 0.0, 1.0, "train.json", 100, 0.68)
    folder = shutil.copytree(small_engine, tmp_path / "calibrated")
    keep_spread(open_engine(folder), note)
    plain, found = (verify(options(engine, photographs, perfect)) for engine in (small_engine, folder))
    assert plain.reliability is None and "spread" not in report_table(plain)
    assert found.reliability.covered == 1 and found.reliability.count == 2 * 14 * len(found.dataset)
    table = report_table(found)
    assert table["spread"]["covered"] == 1
    assert "One spread holds 100.0 % of" in markdown(table) and "Whether the spread holds" in html_page(found, table)
