"""OKS, OKS-NMS and AP: by hand, against an independent computation, and against the tools called directly."""

import json
import math

import numpy as np
import pytest

from sdk.evaluate.scores.average_precision import ResampledAp, coco_ap, crowdpose_ap
from sdk.evaluate.scores.oks import joint_oks, nms_keep, person_oks, person_scores, soft_nms_keep
from sdk.skeletons import skeleton_by_name

pytest.importorskip("pycocotools")
COCO = skeleton_by_name("coco17")
CROWD = skeleton_by_name("crowdpose14")


def truth_record(image_id, keypoints, area=10_000.0, iscrowd=0, box=(0, 0, 100, 100)):
    """A record of the truth; `keypoints` K x 2, all annotated."""
    flat = np.concatenate([keypoints, np.full((len(keypoints), 1), 2.0)], axis=1)
    return {
        "image_id": image_id,
        "bbox": list(box),
        "area": area,
        "iscrowd": iscrowd,
        "keypoints": flat.ravel().tolist(),
    }


def result_record(image_id, keypoints, score):
    flat = np.concatenate([keypoints, np.ones((len(keypoints), 1))], axis=1)
    return {"image_id": image_id, "score": score, "keypoints": flat.ravel().tolist()}


def shift_for(oks, sigma, area):
    """The distance at which one joint has this similarity, from the definition."""
    return math.sqrt(-math.log(oks) * 2 * area * (2 * sigma) ** 2)


def pose(seed, joints=17):
    return np.random.default_rng(seed).uniform(0, 100, (joints, 2))


def moved_to(keypoints, oks):
    """The pose, of an area of 10,000, with every joint moved right by what gives it this OKS."""
    return keypoints + np.array([[shift_for(oks, sigma, 1e4), 0.0] for sigma in COCO.sigmas])


@pytest.mark.parametrize("oks", [1.0, 0.9, 0.5, 0.05])
def test_oks_of_a_pose_moved_by_the_definition(oks):
    points = pose(0)
    truth = np.concatenate([points, np.full((17, 1), 2.0)], axis=1)[None]
    moved = moved_to(points, oks)[None]
    assert person_oks(moved, truth, np.array([1e4]), COCO.sigmas) == pytest.approx([oks], rel=1e-9)
    assert joint_oks(moved, truth, np.array([1e4]), COCO.sigmas)[0] == pytest.approx([oks] * 17, rel=1e-9)


def test_oks_counts_annotated_joints_only_and_missing_ones_as_zero():
    truth = np.concatenate([pose(1), np.zeros((17, 1))], axis=1)[None]
    truth[0, :4, 2] = 1
    predicted = truth[..., :2].copy()
    predicted[0, 0] = np.nan
    predicted[0, 10] += 500
    assert person_oks(predicted, truth, np.array([900.0]), COCO.sigmas) == pytest.approx([0.75])
    nobody = np.zeros((1, 17, 3))
    assert np.isnan(person_oks(predicted, nobody, np.array([900.0]), COCO.sigmas)).all()


def test_person_score_is_box_times_mean_of_joints_above_the_threshold():
    joints = np.array([[0.9, 0.5, 0.2, 0.1], [0.2, 0.1, 0.0, 0.0]])
    # 0.2 itself is not above 0.2: (0.9 + 0.5) / 2 x 0.8; nothing above gives 0
    assert person_scores(joints, np.array([0.8, 1.0]), 0.2).tolist() == pytest.approx([0.56, 0.0])


NMS_CASES = {  # OKS of poses 1 and 2 with pose 0; what hard NMS at 0.9 keeps, best first
    "duplicate-goes": ([0.95, 0.2], [0, 2]),
    "just-at-the-threshold-stays": ([0.9 - 1e-9, 0.2], [0, 1, 2]),
    "both-go": ([0.99, 0.91], [0]),
}


@pytest.mark.parametrize("case", NMS_CASES)
def test_hard_nms(case):
    similarities, kept = NMS_CASES[case]
    first = pose(2)
    poses = np.stack([first, *[moved_to(first, oks) for oks in similarities]])
    poses[2, :, 1] += 0.0 if similarities[1] > 0.5 else 400.0
    assert nms_keep(poses, np.array([0.9, 0.8, 0.7]), np.full(3, 1e4), COCO.sigmas, 0.9) == kept


def test_nms_takes_the_best_first_and_the_mean_of_both_areas():
    first = pose(3)
    poses = np.stack([first, moved_to(first, 0.92)])
    scores = np.array([0.1, 0.9])
    assert nms_keep(poses, scores, np.full(2, 1e4), COCO.sigmas, 0.9) == [1]
    # a second area of a quarter makes the mean 0.625: 0.92 ** (1 / 0.625) = 0.875, no duplicate
    assert nms_keep(poses, scores, np.array([1e4, 2.5e3]), COCO.sigmas, 0.9) == [1, 0]
    assert nms_keep(poses[:0], scores[:0], np.zeros(0), COCO.sigmas, 0.9) == []


@pytest.mark.parametrize(
    ("areas", "kept"),  # of the worse and of the better pose: OKS is 0.92 ** (1e4 / area), above 0.9 from 7,914 on
    [((12e3, 5e3), [1]), ((5e3, 12e3), [1]), ((3e3, 12e3), [1, 0]), ((12e3, 3e3), [1, 0])],
    ids=["mean-8500", "mean-8500-turned", "mean-7500", "mean-7500-turned"],
)
def test_neither_area_alone_decides_nms(areas, kept):
    first = pose(3)
    poses = np.stack([first, moved_to(first, 0.92)])
    assert nms_keep(poses, np.array([0.1, 0.9]), np.array(areas), COCO.sigmas, 0.9) == kept


def test_soft_nms_ranks_overlap_lower_and_keeps_twenty():
    first = pose(4)
    poses = np.stack([first, moved_to(first, 0.97), first + 5000])
    # 0.8 x exp(-0.97^2 / 0.9) = 0.28 falls behind 0.5
    assert soft_nms_keep(poses, np.array([0.9, 0.8, 0.5]), np.full(3, 1e4), COCO.sigmas, 0.9) == [0, 2, 1]
    many = np.stack([first + 1000 * n for n in range(30)])
    kept = soft_nms_keep(many, np.linspace(1, 0.1, 30), np.full(30, 1e4), COCO.sigmas, 0.9)
    assert kept == list(range(20))


def far(keypoints):
    return keypoints + 10_000


A, B = pose(5), pose(6) + 300
TWO = [truth_record(1, A), truth_record(1, B)]
KNOWN_AP = {  # truth, results, AP by hand
    "one-perfect": ([truth_record(1, A)], [result_record(1, A, 0.5)], 100.0),
    "nothing-predicted": ([truth_record(1, A)], [], 0.0),
    "one-of-two-found": (TWO, [result_record(1, A, 0.9)], 100 * 51 / 101),  # recalls 0 .. 0.5 of 101
    "wrong-first": ([truth_record(1, A)], [result_record(1, far(A), 0.9), result_record(1, A, 0.5)], 50.0),
    "wrong-last-costs-nothing": (
        [truth_record(1, A)],
        [result_record(1, A, 0.9), result_record(1, far(A), 0.5)],
        100.0,
    ),
    "oks-0.72-passes-five-of-ten": ([truth_record(1, A)], [result_record(1, moved_to(A, 0.72), 0.9)], 50.0),
    "on-a-crowd-is-ignored": (
        [truth_record(1, A), truth_record(1, B, iscrowd=1)],
        [result_record(1, B, 0.9), result_record(1, A, 0.5)],
        100.0,
    ),
    "two-images": (
        [truth_record(1, A), truth_record(2, B)],
        [result_record(1, A, 0.9), result_record(2, far(B), 0.8)],
        100 * 51 / 101,
    ),
}


@pytest.mark.parametrize("case", KNOWN_AP)
def test_ap_worked_by_hand(case):
    truth, results, expected = KNOWN_AP[case]
    ap = coco_ap(truth, results, [1, 2], COCO.sigmas)
    assert ap.figures["AP"] == pytest.approx(expected, abs=1e-6)
    assert ResampledAp(ap.matches)(np.ones(2, int)) == pytest.approx(expected, abs=1e-6)


def test_ap_without_annotated_persons_is_nan():
    ap = coco_ap([], [result_record(1, A, 0.9)], [1], COCO.sigmas)
    assert math.isnan(ap.figures["AP"]) and math.isnan(ResampledAp(ap.matches)(np.ones(1, int)))


def noisy_set(seed, images=40, joints=17, skeleton=COCO):
    """Images with one to four persons, predictions of every quality, some missing, some false."""
    rng = np.random.default_rng(seed)
    truth, results = [], []
    for image in range(1, images + 1):
        for person in range(rng.integers(1, 5)):
            points = rng.uniform(0, 90, (joints, 2)) + 150 * person
            area = float(rng.uniform(500, 20_000))
            truth.append(truth_record(image, points, area, box=(150 * person, 0, area**0.5, area**0.5)))
            if rng.uniform() < 0.9:
                results.append(
                    result_record(image, points + rng.normal(0, rng.uniform(0, 9), (joints, 2)), rng.uniform())
                )
            if rng.uniform() < 0.2:
                results.append(result_record(image, rng.uniform(0, 600, (joints, 2)), rng.uniform()))
    return truth, results


def ap_from_definition(truth, results, sigmas):
    """AP once more, person by person from its definition, in plain Python."""
    variances = [(2 * s) ** 2 for s in sigmas]
    total = 0.0
    for step in range(10):
        threshold, hits = 0.5 + 0.05 * step, []
        for image in sorted({t["image_id"] for t in truth}):
            open_truth = [t for t in truth if t["image_id"] == image]
            for r in sorted((r for r in results if r["image_id"] == image), key=lambda r: -r["score"])[:20]:
                best, chosen = threshold - 1e-10, None
                for t in open_truth:
                    e = [
                        math.exp(
                            -((r["keypoints"][3 * k] - t["keypoints"][3 * k]) ** 2
                              + (r["keypoints"][3 * k + 1] - t["keypoints"][3 * k + 1]) ** 2)
                            / (2 * t["area"] * v)
                        )
                        for k, v in enumerate(variances)
                    ]  # fmt: skip
                    if sum(e) / len(e) >= best:
                        best, chosen = sum(e) / len(e), t
                if chosen is not None:
                    open_truth.remove(chosen)
                hits.append((r["score"], chosen is not None))
        hits.sort(key=lambda hit: -hit[0])
        curve, right = [], 0
        for n, (_, hit) in enumerate(hits, 1):
            right += hit
            curve.append((right / len(truth), right / n))
        total += sum(max((p for c, p in curve if c >= recall / 100), default=0.0) for recall in range(101)) / 101
    return 100 * total / 10


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ap_equals_an_independent_computation(seed):
    truth, results = noisy_set(seed, images=12)
    ap = coco_ap(truth, results, list(range(1, 13)), COCO.sigmas)
    assert 5 < ap.figures["AP"] < 95
    assert ap.figures["AP"] == pytest.approx(ap_from_definition(truth, results, COCO.sigmas), abs=1e-6)


def test_a_bootstrap_sample_equals_ap_of_a_set_with_the_images_repeated():
    truth, results = noisy_set(3, images=15)
    ids = list(range(1, 16))
    ap = coco_ap(truth, results, ids, COCO.sigmas)
    counts = np.random.default_rng(0).integers(0, 3, 15)
    copies = [(image, 100 * n + image) for image, count in zip(ids, counts, strict=True) for n in range(count)]
    many_truth = [{**t, "image_id": copy} for image, copy in copies for t in truth if t["image_id"] == image]
    many_results = [{**r, "image_id": copy} for image, copy in copies for r in results if r["image_id"] == image]
    whole = coco_ap(many_truth, many_results, [copy for _, copy in copies], COCO.sigmas)
    assert ResampledAp(ap.matches)(counts) == pytest.approx(whole.figures["AP"], abs=1e-6)


@pytest.mark.parametrize("skeleton", [COCO, CROWD], ids=["coco", "crowdpose"])
def test_perfect_is_100_and_shuffled_is_near_0(skeleton):
    rng, joints = np.random.default_rng(8), len(skeleton.joints)
    poses = [rng.uniform(0, 200, (joints, 2)) for _ in range(60)]
    truth = [truth_record(n, points) for n, points in enumerate(poses)]
    perfect = [result_record(n, points, rng.uniform()) for n, points in enumerate(poses)]
    shuffled = [result_record(n, poses[(n + 7) % 60], rng.uniform()) for n in range(60)]
    index = {n: n / 60 for n in range(60)}

    def figures(results):
        if skeleton is CROWD:
            pytest.importorskip("faster_coco_eval")
            return crowdpose_ap(truth, results, index, skeleton.sigmas).figures
        return coco_ap(truth, results, list(index), skeleton.sigmas).figures

    assert all(value == pytest.approx(100) for value in figures(perfect).values() if not math.isnan(value))
    assert all(value < 2 for value in figures(shuffled).values() if not math.isnan(value))


def test_crowdpose_splits_by_the_crowd_index_and_has_nan_for_an_empty_split():
    pytest.importorskip("faster_coco_eval")
    truth, results = noisy_set(4, images=30, joints=14, skeleton=CROWD)
    index = {image: 0.1 if image <= 10 else 0.2 if image <= 20 else 0.8 for image in range(1, 31)}
    ap = crowdpose_ap(truth, results, index, CROWD.sigmas)
    boxed = [{**t, "area": 0.53 * t["bbox"][2] * t["bbox"][3]} for t in truth]
    splits = {"AP": range(1, 31), "AP easy": range(1, 11), "AP medium": range(11, 21), "AP hard": range(21, 31)}
    for split, ids in splits.items():
        assert ap.figures[split] == pytest.approx(
            coco_ap(boxed, results, list(ids), CROWD.sigmas).figures["AP"], abs=1e-6
        )
    easy = crowdpose_ap(truth, results, dict.fromkeys(index, 0.1), CROWD.sigmas)
    assert math.isnan(easy.figures["AP medium"]) and math.isnan(easy.figures["AP hard"])
    assert ResampledAp(ap.matches)(np.ones(30, int)) == pytest.approx(ap.figures["AP"], abs=1e-6)


@pytest.mark.data
def test_crowdpose_equals_faster_coco_eval_on_the_sample(shared):
    tool = pytest.importorskip("faster_coco_eval")
    path = shared / "data" / "samples" / "crowdpose" / "test_crowdpose.json"
    table = json.loads(path.read_text())
    rng = np.random.default_rng(0)
    truth = [{**a, "area": 1.0} for a in table["annotations"]]
    results = [
        result_record(
            a["image_id"], np.reshape(a["keypoints"], (14, 3))[:, :2] + rng.normal(0, 6, (14, 2)), rng.uniform()
        )
        for a in table["annotations"]
    ]
    index = {image["id"]: image["crowdIndex"] for image in table["images"]}
    ours = crowdpose_ap(truth, results, index, CROWD.sigmas).figures
    gt = tool.COCO(str(path))
    dt = gt.loadRes([{**r, "category_id": 1} for r in results])
    theirs = tool.COCOeval_faster(
        gt, dt, "keypoints_crowd", print_function=lambda *_: None, kpt_oks_sigmas=list(CROWD.sigmas), use_area=False
    )
    theirs.run()
    stats = theirs.stats_as_dict
    for name, key in (("AP", "AP_all"), ("AP50", "AP_50"), ("AP75", "AP_75"), ("AR", "AR_all")):
        assert ours[name] == pytest.approx(100 * stats[key], abs=1e-6), name
    assert ours["AP medium"] == pytest.approx(100 * stats["AP_medium"], abs=0.0051)  # the tool rounds splits to 0.01
    assert stats["AP_easy"] == stats["AP_hard"] == -1  # its word for a split without images
    assert math.isnan(ours["AP easy"]) and math.isnan(ours["AP hard"])
