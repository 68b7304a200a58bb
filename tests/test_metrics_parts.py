"""Scores of whole bodies, kinds of animals, hands and faces: by hand, and against the reference tools."""

import json
import math

import numpy as np
import pytest

from sdk.errors import DatasetError
from sdk.evaluate.datasets.dataset import DatasetOptions
from sdk.evaluate.datasets.loading import load_dataset
from sdk.evaluate.scores.comparison import compare
from sdk.evaluate.scores.hands_faces import auc, box_pck, box_sides_px, end_point_error_px, measure_px, nme
from sdk.evaluate.scores.part_precision import kinds_ap, wholebody_ap
from sdk.evaluate.scores.scoring import Rules, scores_of
from sdk.recipe_networks import CSPNeXt, GauHead
from sdk.skeletons import SKELETONS
from tests.support.networks import recipe_of
from tests.support.wholebody import SKELETON, figures_by_xtcocotools, in_parts, seeded_wholebodies

pytest.importorskip("pycocotools")

# ---- whole bodies

# xtcocotools 1.14.3 (numpy 1.26.4), of the records that these seeds make
BY_XTCOCOTOOLS = {
    5: {
        "AP body": 17.722401,
        "AP foot": 32.517916,
        "AP face": 26.745766,
        "AP left hand": 13.465347,
        "AP right hand": 10.628713,
        "AP": 18.793474,
        "AP50": 44.156648,
        "AP75": 14.246425,
        "APM": 35.610561,
        "APL": 16.081408,
        "AR": 35.263158,
    },
    6: {
        "AP body": 8.663366,
        "AP foot": 14.169731,
        "AP face": 9.051155,
        "AP left hand": 22.151815,
        "AP right hand": 12.814710,
        "AP": 9.510389,
        "AP50": 28.272202,
        "AP75": 1.320132,
        "APM": 19.463696,
        "APL": 3.635464,
        "AR": 18.571429,
    },
    7: {
        "AP body": 10.130673,
        "AP foot": 24.158762,
        "AP face": 7.588509,
        "AP left hand": 9.239424,
        "AP right hand": 15.800555,
        "AP": 9.497485,
        "AP50": 17.531039,
        "AP75": 9.306931,
        "APM": 8.581447,
        "APL": 10.759076,
        "AR": 23.478261,
    },
}


def figures_of(seed):
    truth, results = seeded_wholebodies(seed)
    return wholebody_ap(truth, results, sorted({record["image_id"] for record in truth}), SKELETON).figures


@pytest.mark.parametrize("seed", BY_XTCOCOTOOLS)
def test_figures_are_those_of_xtcocotools(seed):
    ours = figures_of(seed)
    assert {name: ours[name] for name in BY_XTCOCOTOOLS[seed]} == pytest.approx(BY_XTCOCOTOOLS[seed], abs=1e-5)
    assert ours["AP hand"] == pytest.approx((ours["AP left hand"] + ours["AP right hand"]) / 2)


def test_figures_are_those_of_xtcocotools_here():
    pytest.importorskip(
        "xtcocotools.cocoeval", exc_type=Exception, reason="xtcocotools is not installed, or not usable"
    )
    theirs, ours = figures_by_xtcocotools(*seeded_wholebodies(9)), figures_of(9)
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs, abs=1e-9)


def person(area=10_000.0, image_id=1):
    points = np.random.default_rng(3).uniform(0, 100, (133, 2))
    flat = np.concatenate([points, np.full((133, 1), 2.0)], axis=1)
    return points, {
        "image_id": image_id, "bbox": [0, 0, 100, 100], "area": area, "iscrowd": 0, "keypoints": flat.ravel().tolist(),
    }  # fmt: skip


def found(points, oks_of_group, area=10_000.0):
    """A result whose joints lie right by what gives each group this OKS, from the definition."""
    moved = points.copy()
    for group, oks in oks_of_group.items():
        for joint in SKELETON.groups[group]:
            moved[joint, 0] += math.sqrt(-math.log(oks) * 2 * area * (2 * SKELETON.sigmas[joint]) ** 2)
    flat = np.concatenate([moved, np.ones((133, 1))], axis=1)
    return {"image_id": 1, "score": 0.9, "keypoints": flat.ravel().tolist()}


# OKS of each part -> AP: of the ten thresholds 0.50, 0.55 .. 0.95, how many it reaches
BY_HAND = {
    "perfect": ({}, {"AP": 100, "AP body": 100, "AP face": 100, "AP left hand": 100, "AP hand": 100}),
    # all 133 joints: (17 + 6 + 68 x 0.87 + 21 x 0.72 + 21) / 133 = 0.889, eight thresholds
    "a hand and a face": (
        {"left_hand": 0.72, "face": 0.87},
        {"AP": 80, "AP body": 100, "AP face": 80, "AP left hand": 50, "AP right hand": 100, "AP hand": 75},
    ),
    "no hand": ({"left_hand": 0.3, "right_hand": 0.3}, {"AP left hand": 0, "AP hand": 0, "AP foot": 100}),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_parts_by_hand(case):
    oks, expected = BY_HAND[case]
    points, truth = person()
    figures = wholebody_ap([truth], [found(points, oks)], [1], SKELETON).figures
    assert {name: figures[name] for name in expected} == pytest.approx(expected, abs=1e-6)


def test_a_part_that_is_not_annotated_is_not_missed():
    points, truth = person()
    triples = np.reshape(truth["keypoints"], (133, 3))
    triples[23:91, 2] = 0
    figures = wholebody_ap(
        [{**truth, "keypoints": triples.ravel().tolist()}], [found(points, {"face": 0.01})], [1], SKELETON
    ).figures
    assert np.isnan(figures["AP face"])
    assert (figures["AP"], figures["AP body"]) == pytest.approx((100, 100))


# ---- kinds


def kinds_records(rng, count, results):
    joints, records = 17, []
    for image_id in range(1, count + 1):
        points = rng.uniform(0, 100, (joints, 2))
        record = {"image_id": image_id, "category_id": int(image_id % 3), "bbox": [0, 0, 100, 100], "area": 6e3}
        flat = np.concatenate([points, np.full((joints, 1), 2.0)], axis=1).ravel().tolist()
        records.append({**record, "iscrowd": 0, "keypoints": flat})
        moved = points + rng.normal(0, 8, (joints, 2))
        flat = np.concatenate([moved, np.ones((joints, 1))], axis=1).ravel().tolist()
        results.append({**record, "score": float(rng.random()), "keypoints": flat})
    return records


def test_kinds_are_averaged_as_pycocotools_does():
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    results = []
    truth = kinds_records(np.random.default_rng(0), 30, results)
    sigmas = SKELETONS["ap10k17"].sigmas
    ours = kinds_ap(truth, results, list(range(1, 31)), sigmas)

    def indexed(records):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": i} for i in range(1, 31)],
            "categories": [{"id": i} for i in range(3)],
            "annotations": [{**r, "id": n, "num_keypoints": 17, "iscrowd": 0} for n, r in enumerate(records, start=1)],
        }
        coco.createIndex()
        return coco

    evaluation = COCOeval(indexed(truth), indexed([{**r, "area": 1e4} for r in results]), "keypoints")
    evaluation.params.kpt_oks_sigmas = np.array(sigmas)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    stats = dict(zip(("AP", "AP50", "AP75", "APM", "APL", "AR"), evaluation.stats, strict=False))
    for name, value in stats.items():
        expected = float("nan") if value < 0 else 100 * value
        assert ours.figures[name] == pytest.approx(expected, nan_ok=True), name
    assert ours.figures["AP"] == pytest.approx(np.mean(list(ours.by_kind.values())))
    assert ours.resampled(np.ones(30, int)) == pytest.approx(ours.figures["AP"])
    assert len(set(ours.by_kind.values())) == 3  # they differ, so that the mean shows


def test_a_kind_is_not_found_as_another():
    points, truth = person()
    truth = {**truth, "keypoints": truth["keypoints"][: 17 * 3], "category_id": 4}
    result = {**found(points, {}), "category_id": 5}
    result["keypoints"] = result["keypoints"][: 17 * 3]
    assert kinds_ap([truth], [result], [1], SKELETONS["ap10k17"].sigmas).figures["AP"] == 0


# ---- hands and faces: two instances, two joints (of a face: three, measured by the first two)

HANDS = np.array([[[0, 0, 1], [10, 0, 1]], [[0, 0, 1], [10, 0, 0]]], np.float32)
HAND_BOXES = np.array([[0, 0, 100, 50], [0, 0, 20, 40]], np.float64)
HANDS_FOUND = np.array([[[0, 12], [10, 21]], [[3, 4], [99, 99]]], np.float32)  # off by 12, 21; 5 and one not annotated


def test_pck_of_the_box_by_hand():
    """Reach 20 and 8 pixels: both of the first joint, none of the one second joint; the mean is over joints."""
    shares = box_pck(HANDS_FOUND, HANDS, box_sides_px(HAND_BOXES), 0.2)
    assert shares.tolist() == [100, 0]


def test_pck_is_strict_and_skips_what_nobody_annotated():
    truth = HANDS.copy()
    truth[:, 1, 2] = 0
    shares = box_pck(HANDS_FOUND, truth, np.array([48.0, 24.0]), 0.25)
    assert shares[0] == 50  # 12 is not under 12; 5 is under 6
    assert np.isnan(shares[1])


def test_auc_and_epe_by_hand():
    """Distances 12, 5 and 21 of 30 pixels: 0.4, 0.1667, 0.7. Thresholds 0, 0.05 .. 0.95 above each: 11, 16, 5 of 20."""
    by_joint = [(11 + 16) / 2, 5]
    assert auc(HANDS_FOUND, HANDS) == pytest.approx(100 * np.mean(by_joint) / 20)
    assert end_point_error_px(HANDS_FOUND, HANDS) == pytest.approx((12 + 5 + 21) / 3)


def test_nme_by_hand():
    """Measures 50 and 20; a third face has none. Errors 5, 10, 0 of 50; 4 of 20: per cent 10, 20, 0, 20."""
    truth = np.array(
        [[[0, 0, 1], [50, 0, 1], [9, 9, 1]], [[0, 0, 1], [0, 20, 1], [0, 0, 0]], [[1, 1, 1], [1, 1, 1], [5, 5, 1]]]
    )
    predicted = truth[..., :2] + np.array([[[0, 5], [10, 0], [0, 0]], [[4, 0], [0, 0], [99, 99]], [[7, 7]] * 3])
    measures = measure_px(truth, (0, 1))
    assert measures.tolist() == [50, 20, 0]
    errors = nme(predicted, truth, measures)
    assert errors.mean == pytest.approx((10 + 20 + 0 + 20 + 0) / 5)
    assert errors.per_joint.tolist() == pytest.approx([15, 10, 0])
    assert errors.per_face.tolist() == pytest.approx([10, 10, float("nan")], nan_ok=True)


# ---- from files to figures

TINY, GAU = CSPNeXt("cspnext", 0.167, 0.375), GauHead("gau", 7, 256, 128, 2)


def recipe_with(skeleton):
    from dataclasses import replace

    recipe = recipe_of(TINY, GAU, (64, 64), joints=len(skeleton.joints))
    return replace(recipe, skeleton=skeleton)


@pytest.fixture
def files(tmp_path):
    """COCO-WholeBody's file of seeded persons, with flags and boxes; pictures that are there and never opened."""
    truth, _ = seeded_wholebodies(4, most=1)
    tables = []
    for number, record in enumerate(truth):
        table = {**in_parts(record), "id": number + 1}
        x, y, width, height = record["bbox"]
        for part in ("foot", "face", "lefthand", "righthand"):
            table[f"{part}_valid"] = True
            table[f"{part}_box"] = [x - 1, y - 1, width + 2, height + 3]  # holds its joints, and is not the person's
        tables.append(table)
    images = sorted({record["image_id"] for record in truth})
    for image_id in images:
        (tmp_path / f"{image_id}.png").write_bytes(b"")

    def written(change=lambda table: None):
        for table in tables:
            change(table)
        document = {
            "images": [{"id": i, "file_name": f"{i}.png", "width": 640, "height": 640} for i in images],
            "annotations": tables,
            "categories": [{"id": 1, "name": "person", "keypoints": list(SKELETONS["coco17"].joints)}],
        }
        path = tmp_path / "wholebody.json"
        path.write_text(json.dumps(document))
        return DatasetOptions("wholebody", path, tmp_path)

    return written


def scored(options, skeleton, kind, **changes):
    from dataclasses import replace

    recipe = recipe_with(skeleton)
    dataset = load_dataset(replace(options, kind=kind, **changes), recipe)
    truth = dataset.truth.keypoints[dataset.row]
    persons = np.concatenate([truth[..., :2], np.ones((*truth.shape[:2], 1))], axis=2).astype(np.float32)
    return dataset, persons, recipe, scores_of(dataset, persons, Rules(recipe, "none"))


def test_a_whole_body_file_gives_all_parts(files):
    dataset, _, _, scores = scored(files(), SKELETON, "wholebody")
    assert scores.headline == "AP"
    names = ("AP", "AP body", "AP foot", "AP face", "AP left hand", "AP right hand", "AP hand")
    assert [scores.figures[name] for name in names] == pytest.approx([100] * 7)
    assert scores.resampled(np.ones(len(dataset.pictures), int)) == pytest.approx(100)


def test_what_is_not_valid_is_not_annotated(files):
    dataset, *_ = scored(files(lambda table: table.update(face_valid=False)), SKELETON, "wholebody")
    assert not dataset.truth.keypoints[:, 23:91, 2].any()
    assert dataset.truth.keypoints[:, 91:, 2].any()


def test_hands_and_faces_are_taken_one_by_one(files):
    truth, _ = seeded_wholebodies(4, most=1)
    seen = np.array([np.reshape(record["keypoints"], (133, 3))[:, 2] for record in truth])
    hands, _, _, scores = scored(files(), SKELETONS["hand21"], "hand")
    assert len(hands) == int((seen[:, 91:112] > 0).any(1).sum() + (seen[:, 112:] > 0).any(1).sum())
    corners = hands.truth.boxes_xyxy.reshape(-1, 2, 2)
    own = [(w + 2, h + 3) for _, _, w, h in (record["bbox"] for record in truth)]
    for width, height in corners[:, 1] - corners[:, 0]:
        assert any(np.allclose((width, height), each, atol=0.01) for each in own)  # the hand's box, not the person's
    assert scores.headline == "PCK@0.2"
    assert (scores.figures["PCK@0.2"], scores.figures["AUC"], scores.figures["EPE, px"]) == pytest.approx((100, 95, 0))
    assert scores.resampled(np.ones(len(hands.pictures), int)) == pytest.approx(100)
    faces, persons, recipe, scores = scored(files(), SKELETONS["face68"], "face")
    assert len(faces) == int((seen[:, 23:91] > 0).any(1).sum())
    assert scores.figures["NME"] == pytest.approx(0, abs=1e-6)
    worse = persons + np.array([3, 4, 0], np.float32)
    spoilt = scores_of(faces, worse, Rules(recipe, "none"))
    measures = measure_px(faces.truth.keypoints[faces.row], (36, 45))
    counted = (faces.truth.keypoints[faces.row][..., 2] > 0) & (measures > 0)[:, None]
    expected = (counted.sum(1) * 500 / np.maximum(measures, 1e-9))[measures > 0].sum() / counted.sum()
    assert spoilt.figures["NME"] == pytest.approx(expected, rel=1e-5)
    comparison = compare(faces, worse, persons, spoilt, scores, recipe, samples=20)
    assert comparison.drop == pytest.approx(spoilt.figures["NME"])  # an error that grows is a drop
    assert 0 < comparison.interval[0] <= comparison.interval[1]


REFUSED = {
    "a face without a measure": ("hand21", "face", "dataset 'face' is scored by NME, and skeleton 'hand21' names no"),
    "oks without sigmas": (
        "wflw98",
        "custom",
        "dataset 'custom' is scored by OKS, and skeleton 'wflw98' has no sigmas",
    ),
    "another set": ("hand21", "wholebody", "dataset 'wholebody' has the joints of 'wholebody133'"),
    "animals": ("coco17", "ap10k", "dataset 'ap10k' has the joints of 'ap10k17'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_scored_is_refused(case, files):
    skeleton, kind, message = REFUSED[case]
    with pytest.raises(DatasetError) as caught:
        scored(files(), SKELETONS[skeleton], kind)
    assert message in str(caught.value)


def test_detections_of_hands_are_refused(files, tmp_path):
    with pytest.raises(DatasetError, match="hands are measured by their annotated boxes; leave the detections out"):
        scored(files(), SKELETONS["hand21"], "hand", detections=tmp_path / "boxes.json")


def test_a_file_of_halves_is_refused(files):
    def change(table):
        if table["id"] == 2:
            del table["lefthand_kpts"]

    with pytest.raises(DatasetError, match=r"1 of \d+ annotations have no 'lefthand_kpts'"):
        scored(files(change), SKELETON, "wholebody")


def test_animals_of_a_file_are_scored_by_kind(tmp_path):
    skeleton = SKELETONS["ap10k17"]
    results = []
    records = kinds_records(np.random.default_rng(1), 6, results)
    for image_id in range(1, 7):
        (tmp_path / f"{image_id}.png").write_bytes(b"")
    document = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(1, 7)],
        "annotations": [{**record, "id": n} for n, record in enumerate(records, start=1)],
        "categories": [{"id": i, "name": name, "keypoints": list(skeleton.joints)} for i, name in enumerate("abc")],
    }
    (tmp_path / "animals.json").write_text(json.dumps(document))
    dataset, _, recipe, scores = scored(DatasetOptions("ap10k", tmp_path / "animals.json", tmp_path), skeleton, "ap10k")
    assert scores.figures["AP"] == pytest.approx(100)
    order = np.argsort(dataset.picture)
    moved = np.array([np.reshape(r["keypoints"], (17, 3)) for r in results], np.float32)[order]
    expected = kinds_ap(records, [{**r, "score": 1.0} for r in results], list(range(1, 7)), skeleton.sigmas)
    assert scores_of(dataset, moved, Rules(recipe, "none")).figures["AP"] == pytest.approx(expected.figures["AP"])
