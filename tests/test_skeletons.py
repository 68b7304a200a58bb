"""Joint sets: what they must hold, and facts of the four that ship."""

from dataclasses import replace

import pytest

from sdk.errors import RecipeError
from sdk.skeletons import SKELETONS, Skeleton, skeleton_by_name

GOOD = Skeleton("two", ("left_hand", "right_hand", "nose"), ((0, 1),), ((0, 2), (1, 2)), (0.1, 0.1, 0.05))
COUNTS = {"coco17": 17, "crowdpose14": 14, "mpii16": 16, "halpe26": 26}


@pytest.mark.parametrize("name", SKELETONS)
def test_mirroring_joins_left_and_right(name):
    """Every joint named left has its right one as a pair, and no other joint has a pair."""
    skeleton = SKELETONS[name]
    named = {
        frozenset((i, skeleton.joints.index(joint.replace("left", "right", 1))))
        for i, joint in enumerate(skeleton.joints)
        if joint.startswith("left")
    }
    assert {frozenset(pair) for pair in skeleton.flip_pairs} == named
    order = skeleton.flip_order
    assert [order[order[i]] for i in range(len(order))] == list(range(len(order)))


@pytest.mark.parametrize("name", SKELETONS)
def test_limbs_connect_every_joint_once(name):
    skeleton = SKELETONS[name]
    limbs = [frozenset(limb) for limb in skeleton.limbs]
    assert len(set(limbs)) == len(limbs)
    assert set().union(*limbs) == set(range(len(skeleton.joints)))
    mirrored = {frozenset(skeleton.flip_order[i] for i in limb) for limb in limbs}
    assert mirrored == set(limbs)


@pytest.mark.parametrize("name", SKELETONS)
def test_sigmas_are_the_same_on_both_sides(name):
    skeleton = SKELETONS[name]
    assert len(skeleton.sigmas) == COUNTS[name]
    assert all(skeleton.sigmas[a] == skeleton.sigmas[b] for a, b in skeleton.flip_pairs)


def test_coco_is_pycocotools():
    cocoeval = pytest.importorskip("pycocotools.cocoeval", reason="pycocotools is not installed")
    assert list(SKELETONS["coco17"].sigmas) == pytest.approx(cocoeval.Params("keypoints").kpt_oks_sigmas.tolist())


def test_sides_are_read_from_names():
    assert [GOOD.side(i) for i in range(3)] == ["left", "right", "middle"]


BAD = {
    "no joints": ({"joints": ()}, "joints must be unique and not empty (got [])"),
    "twice the same": ({"joints": ("a", "a", "b")}, "joints must be unique and not empty"),
    "too few sigmas": ({"sigmas": (0.1,)}, "sigmas must be 3 positive numbers, one per joint (got (0.1,))"),
    "sigma of nothing": ({"sigmas": (0.1, 0.0, 0.1)}, "sigmas must be 3 positive numbers"),
    "pair beyond": ({"flip_pairs": ((0, 3),)}, "flip_pairs must join two joints of 0 to 2 (got [0, 3])"),
    "pair with itself": ({"flip_pairs": ((1, 1),)}, "flip_pairs must join two joints of 0 to 2 (got [1, 1])"),
    "limb before": ({"limbs": ((-1, 0),)}, "limbs must join two joints of 0 to 2 (got [-1, 0])"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_joint_set_is_refused(case):
    change, message = BAD[case]
    with pytest.raises(RecipeError) as caught:
        replace(GOOD, **change)
    assert f"skeleton 'two': {message}" in str(caught.value)


def test_an_unknown_name_lists_the_known():
    with pytest.raises(RecipeError, match="must be one of coco17, crowdpose14, halpe26, mpii16 or a table"):
        skeleton_by_name("coco18")
