"""Stated spreads held against labels: the fit, the shares it holds, `sdk calibrate --spread`, the bundled network."""

import json
from pathlib import Path

import numpy as np
import pytest

from sdk.columns import Spread
from sdk.errors import DatasetError, EngineError, InputError
from sdk.evaluate.scores.reliability import FEWEST, ONE_SPREAD, fitted, reliability
from sdk.manifest import BatchRange, SpreadNote, open_engine
from sdk.toolchain.build import rebuild_engine
from sdk.toolchain.compile import CompileOptions
from sdk.toolchain.engine import keep_spread
from tests.support.engines import wrapped_engine

NOTE = SpreadNote(1.5, 0.4, 0.002, 0.0, "train.json", 1000, 0.68)


# ---- the fit ---------------------------------------------------------------------------------------------------------


def coordinates(rule, count=20000, seed=0):
    """What rows state (variances in bins^2), and errors that `rule` would hold."""
    rng = np.random.default_rng(seed)
    stated = rng.uniform(2, 15, count) ** 2
    true = np.sqrt(rule.floor + stated * (rule.gain + rule.curve * stated))
    return stated, np.abs(rng.standard_normal(count)) * true, true


RULES = {
    "as stated": Spread(),
    "too sure": Spread(gain=2.5),
    "not sure enough": Spread(gain=0.3),
    "surest rows hold less": Spread(gain=0.5, floor=16.0),
    "widest rows hold less": Spread(gain=0.4, curve=0.004),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_the_fit_finds_what_would_hold(rule):
    stated, errors, true = coordinates(rule)
    found = fitted({1.0: stated}, errors)
    held = np.sqrt(found.floor + stated * (found.gain + found.curve * stated))
    np.testing.assert_allclose(held, true, rtol=0.06)
    fresh, unseen, _ = coordinates(rule, seed=1)
    widths = np.sqrt(found.floor + fresh * (found.gain + found.curve * fresh))
    assert np.mean(unseen <= widths) == pytest.approx(ONE_SPREAD, abs=0.01)


def test_of_several_sharpnesses_the_one_that_tells_the_errors_apart_is_taken():
    stated, errors, _ = coordinates(Spread())
    blurred = np.full_like(stated, stated.mean())
    assert fitted({0.5: blurred, 2.0: stated, 3.0: blurred}, errors).sharpness == 2.0


def test_shares_are_those_of_a_gaussian_for_errors_of_one():
    _, errors, true = coordinates(Spread())
    found = reliability(true, errors)
    np.testing.assert_allclose(found.held, found.levels, atol=0.012)
    assert found.covered == pytest.approx(ONE_SPREAD, abs=0.012)
    assert list(found.spreads_px) == sorted(found.spreads_px)
    np.testing.assert_allclose(found.covered_by_spread, ONE_SPREAD, atol=0.03)


def test_a_spread_twice_too_wide_is_seen():
    _, errors, true = coordinates(Spread())
    assert reliability(2 * true, errors).covered == pytest.approx(0.954, abs=0.01)


def test_too_few_labels_say_nothing():
    few = np.ones(FEWEST - 1)
    for call in (lambda: reliability(few, few), lambda: fitted({1.0: few}, few)):
        with pytest.raises(DatasetError, match=rf"at least {FEWEST} labelled coordinates.*\(got {FEWEST - 1}\)"):
            call()


# ---- an engine's calibration -----------------------------------------------------------------------------------------


@pytest.fixture
def people(tmp_path):
    """Pictures of noise, two persons each, all joints labelled."""
    import cv2

    rng = np.random.default_rng(0)
    joints = [f"joint {k}" for k in range(14)]
    table = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "person", "keypoints": joints}]}
    for number in range(6):
        cv2.imwrite(str(tmp_path / f"{number}.png"), rng.integers(0, 256, (96, 128, 3), np.uint8))
        table["images"].append({"id": number, "file_name": f"{number}.png", "width": 128, "height": 96})
        for side in (4, 66):
            points = np.column_stack([rng.uniform(side, side + 50, 14), rng.uniform(5, 90, 14), np.full(14, 2)])
            record = {"id": len(table["annotations"]) + 1, "image_id": number, "category_id": 1, "iscrowd": 0}
            record |= {
                "bbox": [side, 4, 52, 88],
                "area": 2000.0,
                "keypoints": points.ravel().tolist(),
                "num_keypoints": 14,
            }
            table["annotations"].append(record)
    path = tmp_path / "people.json"
    from sdk.skeletons import skeleton_by_name

    table["categories"][0]["keypoints"] = list(skeleton_by_name("crowdpose14").joints)
    path.write_text(json.dumps(table))
    return path


@pytest.mark.native
def test_the_verb_keeps_the_calibration_in_the_manifest(small_graphs, people, tmp_path, capsys):
    from sdk.cli import main

    graph, recipe = small_graphs["simcc"]
    folder = wrapped_engine(graph, tmp_path / "small.fp32", recipe)
    before = open_engine(folder).manifest
    assert main(["calibrate", str(folder), "--spread", "--data", str(people), "--device", "cpu", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    after = open_engine(folder).manifest
    assert after.spread is not None and told["joints"] == after.spread.joints == 6 * 2 * 14
    assert after.spread.data == "people.json" and 0.6 < after.spread.covered < 0.76
    assert {**after.to_table(), "spread": None} == {**before.to_table(), "spread": None}
    assert sorted(path.name for path in folder.iterdir()) == ["engine.json", "network.onnx"]


@pytest.mark.native
@pytest.mark.parametrize("name", ["small.fp32", "small"])
def test_a_bundled_engine_stays_and_a_copy_here_is_calibrated(
    small_graphs, people, tmp_path, name, monkeypatch, capsys, caplog
):
    from sdk.cli import main

    graph, recipe = small_graphs["simcc"]
    installed = wrapped_engine(graph, tmp_path / "installed" / "small.fp32", recipe)
    for module in ("sdk.runtime.opening", "sdk.cli.calibrate"):
        monkeypatch.setattr(f"{module}.bundled_engines", lambda: {"small.fp32": installed})
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    before = (installed / "engine.json").read_bytes()
    words = ["--spread", "--data", str(people), "--device", "cpu"]
    assert main(["calibrate", name, *words]) == 0
    assert capsys.readouterr().out == "small.fp32\n"
    assert (installed / "engine.json").read_bytes() == before
    assert open_engine(Path("small.fp32")).manifest.spread.data == "people.json"
    assert "stays as it is: a copy is calibrated, './small.fp32'" in caplog.text
    assert "calibrating a spread with 12 persons: fewer than 500" in caplog.text
    assert main(["calibrate", str(installed), *words]) == 0, "a path means the folder itself"
    assert open_engine(installed).manifest.spread is not None


USAGE = {
    "a table as well": (["--output", "table.json"], "writes its manifest: leave --output out"),
    "no engine": ([], "--spread takes an engine in RECIPE's place"),
    "how ranges are found": (["--method", "max"], "--spread runs an engine as it is: leave --method out"),
    "another graph": (["--onnx", "a.onnx"], "leave --onnx out"),
    "a chart of layers": (["--sensitivity"], "leave --sensitivity out"),
}


@pytest.mark.parametrize(("more", "message"), USAGE.values(), ids=USAGE)
def test_misuse_of_the_verb_is_told(more, message, people, capsys):
    from sdk.cli import main

    engine = ["body14-nano-128x128.fp32"] if more else []
    assert main(["calibrate", *engine, "--spread", "--data", str(people), *more]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.native
def test_heatmaps_have_no_spread_to_calibrate(small_graphs, people, tmp_path):
    from sdk.evaluate.datasets.dataset import DatasetOptions
    from sdk.evaluate.datasets.loading import load_dataset
    from sdk.evaluate.spread import SpreadRun, calibrated

    graph, recipe = small_graphs["heatmap"]
    engine = open_engine(wrapped_engine(graph, tmp_path / "heat", recipe))
    dataset = load_dataset(DatasetOptions("custom", people, people.parent), recipe)
    with pytest.raises(InputError, match="spread must be left out for a heatmap engine"):
        calibrated(engine, dataset, SpreadRun("cpu"), "people.json")


def test_an_engine_rebuilt_meanwhile_keeps_no_foreign_calibration(small_graphs, tmp_path):
    graph, recipe = small_graphs["simcc"]
    engine = open_engine(wrapped_engine(graph, tmp_path / "small", recipe))
    assert keep_spread(engine, NOTE).manifest.spread == NOTE
    table = json.loads((engine.folder / "engine.json").read_text())
    (engine.folder / "more.txt").write_text("x")
    table["files"]["more.txt"] = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    (engine.folder / "engine.json").write_text(json.dumps(table))
    with pytest.raises(EngineError, match="was rebuilt meanwhile; calibrate its spread again"):
        keep_spread(engine, NOTE)


@pytest.mark.parametrize("place", ["in place", "elsewhere", "over one without"])
def test_a_rebuild_keeps_the_calibration_of_its_graph(small_graphs, tmp_path, place):
    graph, recipe = small_graphs["simcc"]
    none = CompileOptions("none", batch=BatchRange(1, 1, 8))
    folder = wrapped_engine(graph, tmp_path / "small", recipe)
    output = folder if place == "in place" else tmp_path / "again"
    if place == "over one without":
        assert rebuild_engine(folder, none, output).manifest.spread is None
    keep_spread(open_engine(folder), NOTE)
    assert rebuild_engine(folder, none, output).manifest.spread == NOTE


@pytest.mark.native
@pytest.mark.data
def test_the_bundled_networks_spread_holds_68_percent_of_joints_it_was_not_fitted_on(lspet):
    from sdk.evaluate.datasets.dataset import DatasetOptions, limited
    from sdk.evaluate.datasets.loading import load_dataset
    from sdk.evaluate.spread import SpreadRun, held
    from sdk.runtime.opening import engine_from

    engine = engine_from(None)
    assert engine.manifest.spread is not None and engine.manifest.spread.data == "val.even.json"
    dataset = load_dataset(DatasetOptions("lsp", lspet / "val.json", lspet, partly=True), engine.manifest.recipe)
    odd = limited(dataset, np.arange(len(dataset.pictures)) % 2 == 1)  # fitted on the others
    found = held(engine, odd, SpreadRun("cpu", persons=120, threads=1))
    assert found.covered == pytest.approx(0.68, abs=0.05)
    assert max(found.spreads_px) > 4 * min(found.spreads_px), "a spread that is the same everywhere tells nothing"
    np.testing.assert_allclose(found.covered_by_spread, 0.66, atol=0.1)
