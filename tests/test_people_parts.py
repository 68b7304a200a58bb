"""Hands and faces by networks of their own: where they are looked for, one call a kind, what becomes of the poses."""

import json
from dataclasses import replace

import numpy as np
import pytest

from sdk.errors import InputError
from sdk.people.parts import PartEstimator, face_boxes, hand_boxes
from sdk.poses import Poses, ScoreScale
from sdk.runtime.estimator import BoxEstimator
from sdk.skeletons import SKELETONS, skeleton_by_name
from tests.support.engines import BODY14, pooled_simcc_graph, wrapped_engine
from tests.support.figures import standing_person
from tests.support.predict import lines_of, predict

pytestmark = pytest.mark.native
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

FRAME = np.random.default_rng(0).integers(0, 256, (420, 400, 3), np.uint8)
SURE = ScoreScale(-1e9, 1e9)  # every joint of a random network is fair


def engine_of(folder, skeleton, **output):
    recipe = replace(
        BODY14,
        name=f"{skeleton}-32x32",
        skeleton=skeleton_by_name(skeleton),
        input=replace(BODY14.input, height=32, width=32),
        output=replace(BODY14.output, **output),
    )
    return wrapped_engine(pooled_simcc_graph(folder / f"{skeleton}.onnx", recipe), folder / skeleton, recipe)


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    return {name: engine_of(folder, name) for name in ("hand21", "face68", "lapa106", "coco17", "ap10k17")}


def persons(skeleton="coco17", count=2, scale=SURE):
    joints = len(SKELETONS[skeleton].joints)
    keypoints = np.concatenate([standing_person((10 + 150 * n, 10), 380 - 100 * n) for n in range(count)])[:, :joints]
    scores = np.ones((count, joints), np.float32)
    boxes = np.concatenate([keypoints.min(axis=1), keypoints.max(axis=1)], axis=1)
    return Poses(
        keypoints, scores, boxes, np.ones(count, np.float32), SKELETONS[skeleton], np.arange(count), score_scale=scale
    )


# ---- where


def test_a_hand_lies_beyond_the_wrist():
    """OpenPose's rule: the wrist and a third of the forearm; 1.5 forearms wide, of which 1.25 is the crop's padding."""
    poses = persons(count=1)
    elbow, wrist, shoulder = (poses.keypoints[0, i] for i in (7, 9, 5))
    forearm, upper = np.linalg.norm(wrist - elbow), np.linalg.norm(shoulder - elbow)
    (box,) = hand_boxes(poses, "left_hand")
    assert (box[:2] + box[2:]) / 2 == pytest.approx(wrist + 0.33 * (wrist - elbow), abs=1e-3)
    assert box[2:] - box[:2] == pytest.approx([1.2 * max(forearm, 0.9 * upper)] * 2, rel=1e-5)
    hand = standing_person((10, 10), 380)[0, 91:112]
    assert (hand > box[:2]).all() and (hand < box[2:]).all()  # the whole hand is in it


def test_a_face_lies_about_the_nose():
    (box,) = face_boxes(persons(count=1))
    face = standing_person((10, 10), 380)[0, 23:91]
    assert (face > box[:2] - 4).all() and (face < box[2:] + 4).all()
    assert (box[:2] + box[2:]) / 2 == pytest.approx(persons(count=1).keypoints[0, 0], abs=1e-3)


UNSEEN = {  # joints that are not seen, and whether a left hand, and a face, can be told
    "none": ((), True, True),
    "wrist": ((9,), False, True),
    "elbow": ((7,), False, True),
    "shoulder": ((5,), True, True),
    "nose": ((0,), True, True),
    "all of the face but the nose": ((1, 2, 3, 4), True, False),
    "a profile": ((1, 3), True, True),
}


@pytest.mark.parametrize("case", UNSEEN)
def test_what_is_not_seen_gives_no_box(case):
    joints, hand, face = UNSEEN[case]
    poses = persons(count=1, scale=ScoreScale())
    poses.scores[0, list(joints)] = 0
    assert np.isfinite(hand_boxes(poses, "left_hand")).all() == hand
    assert np.isfinite(face_boxes(poses)).all() == face


def test_a_whole_bodys_own_joints_give_the_boxes():
    poses = persons("wholebody133", count=1)
    hand = poses.part("right_hand").keypoints[0]
    (box,) = hand_boxes(poses, "right_hand")
    extent = np.ptp(hand, axis=0)
    assert box == pytest.approx([*(hand.min(0) - 0.1 * extent), *(hand.max(0) + 0.1 * extent)], rel=1e-4)


# ---- what becomes of the poses


def test_joints_are_added_to_a_body(engines):
    poses = persons()
    with PartEstimator([engines["hand21"], engines["lapa106"]], device="cpu") as with_parts:
        found = with_parts(FRAME, poses)
    assert found.keypoints.shape == (2, 17 + 42 + 106, 2)
    assert list(found.groups) == ["body", "left_hand", "right_hand", "face"]
    np.testing.assert_array_equal(found.part("body").keypoints, poses.keypoints)
    assert found.skeleton.joints[17] == "left_hand_wrist" and found.skeleton.joints[-1] == "face_kpt-105"
    assert (17, 38) in found.skeleton.flip_pairs  # the wrist of a hand is that of the other, mirrored
    assert found.timings_ms["total"] >= found.timings_ms["parts"] > 0
    with BoxEstimator(engines["hand21"], device="cpu") as estimate:
        for group in ("left_hand", "right_hand"):
            alone = estimate(FRAME, hand_boxes(poses, group))
            np.testing.assert_allclose(found.part(group).keypoints, alone.keypoints, atol=1e-3)
    assert found.draw(FRAME).shape == FRAME.shape
    assert found.draw(FRAME, style="openpose").any()


def test_all_hands_of_a_frame_are_one_call(engines, monkeypatch):
    counts = []
    plain = BoxEstimator.__call__

    def counted(self, frame, boxes=None, **more):
        counts.append(len(boxes))
        return plain(self, frame, boxes, **more)

    monkeypatch.setattr(BoxEstimator, "__call__", counted)
    with PartEstimator([engines["hand21"], engines["face68"]], device="cpu") as with_parts:
        with_parts(FRAME, persons(count=3))
    assert counts == [6, 3]


def test_joints_of_a_whole_body_are_replaced(engines):
    poses = persons("wholebody133")
    with PartEstimator([engines["hand21"], engines["face68"]], device="cpu") as with_parts:
        found = with_parts(FRAME, poses)
    assert found.skeleton == poses.skeleton
    np.testing.assert_array_equal(found.keypoints[:, :23], poses.keypoints[:, :23])
    assert (found.keypoints[:, 23:] != poses.keypoints[:, 23:]).any(axis=2).all()


def test_a_hand_that_its_network_does_not_see_stays_the_bodys(engines):
    poses = persons("wholebody133", scale=ScoreScale(2.0, 3.0))  # no random network reaches it; the body's joints do
    poses.scores[:] = 2.5
    with PartEstimator([engines["hand21"]], device="cpu") as with_parts:
        np.testing.assert_array_equal(with_parts(FRAME, poses).keypoints, poses.keypoints)


def test_another_face_than_the_bodys_is_added(engines):
    with PartEstimator([engines["lapa106"]], device="cpu") as with_parts:
        found = with_parts(FRAME, persons("wholebody133"))
    assert list(found.groups)[-1] == "face_lapa106"
    assert found.keypoints.shape[1] == 133 + 106


def test_a_part_that_was_not_looked_for_scores_nothing(engines):
    poses = persons(scale=ScoreScale())
    poses.scores[1, 9] = 0
    with PartEstimator([engines["hand21"]], device="cpu") as with_parts:
        found = with_parts(FRAME, poses)
    assert not found.part("left_hand").scores[1].any()
    assert not found.part("left_hand").keypoints[1].any()
    assert found.part("right_hand").scores[1].any()
    json.dumps(found.to_dict())  # nothing that JSON has no word for


def test_nobody_has_no_parts(engines):
    with PartEstimator([engines["hand21"]], device="cpu") as with_parts:
        assert with_parts(FRAME, persons()[[]]).keypoints.shape == (0, 17 + 42, 2)


def test_depths_and_spreads_stay_aligned(engines):
    poses = replace(persons(), depths=np.ones((2, 17), np.float32), spread=np.ones((2, 17, 2), np.float32))
    with PartEstimator([engines["hand21"]], device="cpu") as with_parts:
        found = with_parts(FRAME, poses)
    assert found.depths.shape == (2, 59) and found.spread.shape == (2, 59, 2)
    assert np.isnan(found.depths[:, 17:]).all() and (found.depths[:, :17] == 1).all()


# ---- what is refused

REFUSED = {
    "a body": (("coco17",), "must be of a hand or of a face (its joints are 'coco17')"),
    "two faces": (("face68", "lapa106"), "engine 'lapa106' is a second one of a face; give one of each"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_engines_that_are_no_parts_are_refused(case, engines):
    names, message = REFUSED[case]
    with pytest.raises(InputError) as caught:
        PartEstimator([engines[name] for name in names], device="cpu")
    assert message in str(caught.value)


def test_a_body_without_wrists_and_another_score_rule_are_refused(engines, small_graphs, tmp_path):
    logits = engine_of(tmp_path, "hand21", score="min_logit")
    graph, recipe = small_graphs["heatmap"]
    maps = wrapped_engine(graph, tmp_path / "maps", recipe)
    for part, body, message in (
        (engines["hand21"], engines["ap10k17"], "skeleton 'ap10k17' has no group 'left_hand', nor left_elbow, left_sh"),
        (logits, engines["coco17"], "scores joints by min_logit and the body's by min_softmax"),
        (logits, maps, "scores joints by min_logit and the body's by a heatmap's peak; scores of one pose must be"),
    ):
        with PartEstimator([part], device="cpu") as parts, BoxEstimator(body, device="cpu") as estimate:
            with pytest.raises(InputError) as caught:
                parts.check(estimate)
            assert message in str(caught.value)


def test_one_name_is_no_list_of_engines(engines):
    with pytest.raises(InputError, match="engines must be a list, of a hand's engine and a face's at most"):
        PartEstimator(str(engines["hand21"]), device="cpu")


@pytest.mark.parametrize(("part", "joint"), [("hand21", "left_wrist"), ("face68", "left_eye")])
def test_poses_without_the_joints_are_refused_too(part, joint, engines):
    frame = np.zeros((60, 80, 3), np.uint8)
    with PartEstimator([engines[part]], device="cpu") as parts, BoxEstimator(engines["hand21"], device="cpu") as hand:
        poses = hand(frame)
        with pytest.raises(InputError, match=f"skeleton 'hand21' has no joint '{joint}' to find a hand or a face by"):
            parts(frame, poses)


# ---- sdk predict --parts


def test_predict_writes_the_parts(engines, photos, tmp_path):
    lines = tmp_path / "p.jsonl"
    options = ("--parts", engines["hand21"], "--parts", engines["face68"], "--jsonl", lines, "--save", tmp_path / "out")
    assert predict(engines["coco17"], photos, *options) == 0
    (first, *_) = lines_of(lines)
    assert len(first["joints"]) == 17 + 42 + 68
    assert np.shape(first["keypoints"]) == (1, 127, 2)
    assert first["timings_ms"]["parts"] > 0
    assert (tmp_path / "out" / "0.png").is_file()


def test_predict_refuses_parts_before_any_frame(engines, photos, capsys):
    assert predict(engines["ap10k17"], photos, "--parts", engines["hand21"]) == 1
    assert "skeleton 'ap10k17' has no group 'left_hand'" in capsys.readouterr().err
