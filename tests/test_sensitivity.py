"""What INT8 costs, judged on real crops: AP and OKS of the judge, groups and curve, budgets, the automatic choice."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx
from onnx import numpy_helper

from sdk.errors import CalibrationError
from sdk.toolchain.auto import decide
from sdk.toolchain.calibrate import CalibrateOptions, calibrate
from sdk.toolchain.crops import CropSet, people_from_data
from sdk.toolchain.judge import Judge, single_person_ap
from sdk.toolchain.placement import placement_of
from sdk.toolchain.quantize import QuantizeOptions, qdq_graph_from_graph
from sdk.toolchain.sensitivity import draw_sensitivity, measure_sensitivity
from sdk.toolchain.table import BudgetPoint, GroupCost, Sensitivity, point_within, tensors_within
from tests.support.int8 import JOINTS, Builder, tiny_recipe, write_photographs

pytestmark = [pytest.mark.torch, pytest.mark.native]
RECIPE = tiny_recipe()


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    data = write_photographs(tmp_path_factory.mktemp("photographs"), 12)
    return CropSet.drawn(people_from_data(data, None, RECIPE), RECIPE, count=12)


@pytest.fixture(scope="module")
def table(tiny_model, crops):
    return calibrate(tiny_model, crops, CalibrateOptions(method="max", equalise=False))


@pytest.fixture(scope="module")
def measured(tiny_model, table, crops):
    return measure_sensitivity(tiny_model, table, crops.some(range(6)), curve_crops=crops)


# The judge


@pytest.mark.parametrize(
    ("oks", "scores", "ap"),
    [
        ([1.0, 1.0, 1.0], [0.9, 0.5, 0.1], 100.0),
        ([0.0, 0.0], [0.9, 0.5], 0.0),
        ([0.72], [0.9], 50.0),
        ([0.0, 1.0], [0.1, 0.9], 100 * 51 / 101),
        ([1.0, 0.0], [0.1, 0.9], 100 * 51 / 101 / 2),
    ],
    ids=["all", "none", "five of ten thresholds", "wrong one last", "wrong one first"],
)
def test_ap_of_single_persons(oks, scores, ap):
    assert single_person_ap(np.array(oks), np.array(scores)) == pytest.approx(ap)


def test_ap_is_that_of_pycocotools():
    pytest.importorskip("pycocotools")
    from sdk.evaluate.scores.average_precision import coco_ap
    from sdk.evaluate.scores.oks import person_oks

    random = np.random.default_rng(0)
    count, joints, sigmas = 40, 14, RECIPE.skeleton.sigmas
    truth_xy = random.uniform(20, 180, (count, joints, 2)).astype(np.float32)
    found = truth_xy + random.normal(0, 1, (count, joints, 2)) * random.uniform(0, 12, (count, 1, 1))
    scores = random.uniform(0.1, 1, count)
    areas = np.full(count, 9000.0)
    truth = np.concatenate([truth_xy, np.full((count, joints, 1), 2.0)], axis=2)
    records = [
        {"id": i + 1, "image_id": i, "bbox": [0, 0, 200, 200], "area": areas[i], "iscrowd": 0, "category_id": 1,
         "num_keypoints": joints, "keypoints": truth[i].ravel().tolist()}
        for i in range(count)
    ]  # fmt: skip
    results = [
        {"image_id": i, "category_id": 1, "score": float(scores[i]),
         "keypoints": np.column_stack([found[i], np.ones(joints)]).ravel().tolist()}
        for i in range(count)
    ]  # fmt: skip
    expected = coco_ap(records, results, list(range(count)), sigmas).figures["AP"]
    assert single_person_ap(person_oks(found, truth, areas, sigmas), scores) == pytest.approx(expected, abs=1e-6)


def test_the_float_graph_costs_nothing(tiny_model, crops):
    cost = Judge(tiny_model, crops).cost_of(tiny_model)
    assert (cost.distance_px, cost.ap_loss, cost.divergence) == (0.0, 0.0, 0.0)
    assert cost.oks_loss == pytest.approx(0.0, abs=1e-9)


def test_losses_of_oks_are_told_in_points(tiny_model, crops):
    """With sigmas of next to nothing, every joint that moves loses all: 100 points for all of them."""
    exact = tuple(1e-6 for _ in RECIPE.skeleton.sigmas)
    strict = replace(crops, recipe=replace(RECIPE, skeleton=replace(RECIPE.skeleton, sigmas=exact)))
    negated = onnx.ModelProto()
    negated.CopyFrom(tiny_model)
    for node in negated.graph.node:
        if node.op_type == "MatMul":  # the largest bin becomes the smallest
            weight = next(t for t in negated.graph.initializer if t.name == node.input[1])
            weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), weight.name))
    assert Judge(tiny_model, strict).cost_of(negated).oks_loss == pytest.approx(100.0)


def test_worse_ranges_cost_more(tiny_model, table, crops):
    judge = Judge(tiny_model, crops)
    narrow = replace(table, tensors={n: replace(t, amax=t.amax / 8) for n, t in table.tensors.items()})
    fair, poor = (judge.cost_of(qdq_graph_from_graph(tiny_model, t)[0]) for t in (table, narrow))
    assert 0 < fair.divergence < poor.divergence
    assert fair.oks_loss < poor.oks_loss
    assert fair.distance_px < poor.distance_px


def test_without_ground_truth_there_is_no_ap(tiny_model, tmp_path):
    data = write_photographs(tmp_path, 3, annotate=False)
    judge = Judge(tiny_model, CropSet.drawn(people_from_data(data, None, RECIPE), RECIPE, count=3))
    assert judge.float_ap is None
    assert judge.cost_of(tiny_model).ap_loss is None


def test_heatmaps_are_judged_too(tmp_path):
    from sdk.recipe import recipe_from_table

    table = RECIPE.to_table()
    table["output"] = {"kind": "heatmap"}
    recipe = recipe_from_table(table, "tests")
    b = Builder()
    x = b.node("Relu", [b.conv("input", "stem", 3, 8, 3, 2)], "stem.relu")
    x = b.node("Relu", [b.conv(x, "body", 8, 8, 3, 2)], "body.relu")
    x = b.node("Relu", [b.conv(x, "deep", 8, 8, 3)], "deep.relu")
    b.conv(x, "heatmap", 8, JOINTS)
    model = b.model(["heatmap"])
    crops = CropSet.drawn(people_from_data(write_photographs(tmp_path, 6), None, recipe), recipe, count=6)
    found = calibrate(model, crops, CalibrateOptions(equalise=False))
    cost = Judge(model, crops).cost_of(qdq_graph_from_graph(model, found)[0])
    assert 0 < cost.divergence < 2 * (8 / 127) ** 2 / 12 * 2  # two tensors and two weights, as noise over signal
    assert cost.distance_px < 8


# Groups and curve


def test_every_group_is_measured_once(tiny_model, table, measured):
    placement = placement_of(tiny_model)
    assert sorted(group.tensor for group in measured.groups) == sorted(placement.tensors)
    assert sorted(n for group in measured.groups for n in group.nodes) == sorted(node.name for node in placement.int8)
    assert sum(group.macs for group in measured.groups) == placement.int8_macs
    assert (measured.crops, measured.curve_crops) == (6, 12)


def test_groups_are_ordered_by_cost_per_work(measured):
    ratios = [max(group.oks_loss, 0) / max(group.macs, 1) for group in measured.groups]
    assert ratios == sorted(ratios)


def test_the_curve_ends_with_everything(tiny_model, measured):
    shares = [point.int8_share for point in measured.curve]
    assert shares == sorted(shares)
    assert shares[-1] == placement_of(tiny_model).int8_share
    assert measured.curve[-1].groups == len(measured.groups)


def test_the_curve_is_what_its_sets_cost(tiny_model, table, crops, measured):
    point = measured.curve[0]
    chosen = frozenset(group.tensor for group in measured.groups[: point.groups])
    quantised, _ = qdq_graph_from_graph(tiny_model, table, QuantizeOptions(int8_tensors=chosen))
    assert Judge(tiny_model, crops).cost_of(quantised).oks_loss == pytest.approx(point.oks_loss)


def test_the_chart_is_a_picture(table, measured, tmp_path):
    pytest.importorskip("matplotlib")
    draw_sensitivity(replace(table, sensitivity=measured), tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(CalibrationError, match="has no sensitivity; calibrate with --sensitivity"):
        draw_sensitivity(table, tmp_path / "none.png")


# Budgets


def with_curve(table, losses, *, oks=False):
    groups = tuple(GroupCost(name, (), 1, 0.0, 0.0) for name in "abcd")
    curve = tuple(
        BudgetPoint(count, count / 4, 0.0, loss if oks else 99.0, None if oks else loss)
        for count, loss in enumerate(losses, start=1)
    )
    return replace(table, sensitivity=Sensitivity(1, 1, 0, groups, curve))


@pytest.mark.parametrize(
    ("losses", "budget", "kept"),
    [
        ([0.1, 0.2, 0.4, 0.9], 0.5, "abc"),
        ([0.1, 0.2, 0.4, 0.9], 1.0, "abcd"),
        ([0.1, 0.2, 0.4, 0.9], 0.15, "a"),
        ([0.6, 0.7, 0.8, 0.9], 0.5, ""),
        ([0.1, 0.8, 0.4, 0.3], 0.5, "a"),
        ([-0.3, 0.0, 0.1, 0.6], 0.0, "ab"),
    ],
    ids=["some", "all", "one", "none", "a lucky larger set does not count", "gains"],
)
@pytest.mark.parametrize("oks", [False, True], ids=["AP", "OKS"])
def test_the_largest_set_inside_a_budget(table, losses, budget, kept, oks):
    measured = with_curve(table, losses, oks=oks)
    assert tensors_within(measured, budget) == frozenset(kept)
    point = point_within(measured, budget)
    assert (0 if point is None else point.groups) == len(kept)


def test_a_budget_needs_a_sensitivity(table):
    with pytest.raises(CalibrationError, match=r"has no sensitivity, so a budget of 0\.5 points cannot be kept"):
        tensors_within(table, 0.5)


def test_a_tight_budget_quantises_less(tiny_model, table, measured):
    whole = replace(table, sensitivity=measured)
    tight = replace(measured, curve=tuple(replace(p, ap_loss=float(p.groups)) for p in measured.curve))
    shares = []
    for candidate, budget in ((whole, 1e9), (replace(table, sensitivity=tight), 5.0)):
        shares.append(qdq_graph_from_graph(tiny_model, candidate, QuantizeOptions(max_drop=budget))[1].int8_share)
    assert shares[1] < shares[0] == placement_of(tiny_model).int8_share


# The automatic choice


@pytest.mark.parametrize(
    ("fp16_ms", "int8_ms", "drop", "kept", "reason"),
    [
        (2.0, 1.5, 0.3, "int8", r"auto kept int8: int8 1\.500 ms, fp16 2\.000 ms: 25\.0% less; costs 0\.30 of 0\.5"),
        (2.0, 1.9, 0.3, "int8", r"5\.0% less"),
        (2.0, 1.92, 0.3, "fp16", r"auto kept fp16: int8 must save 5% of its time here .*4\.0% less"),
        (2.0, 2.4, 0.3, "fp16", r"20\.0% more"),
        (2.0, 1.0, 0.6, "fp16", r"int8 costs 0\.60 points, over the budget of 0\.5"),
        (2.0, 1.0, None, "fp16", "the table does not say what INT8 costs"),
    ],
    ids=["pays", "just pays", "gains too little", "slower", "over budget", "unknown"],
)
def test_the_automatic_choice(fp16_ms, int8_ms, drop, kept, reason):
    import re

    decision = decide(fp16_ms, int8_ms, drop, 0.5)
    assert decision.precision == kept
    assert re.search(reason, decision.reason)
