"""Joint sets: what they must hold, and facts of those that ship."""

import json
from dataclasses import replace

import pytest

from sdk.errors import InputError, RecipeError
from sdk.skeletons import SKELETONS, Skeleton, skeleton_by_name
from tests.support.shared import SHARED

GOOD = Skeleton("two", ("left_hand", "right_hand", "nose"), ((0, 1),), ((0, 2), (1, 2)), (0.1, 0.1, 0.05))
COUNTS = {name: int("".join(filter(str.isdigit, name.removeprefix("ap10k")))) for name in SKELETONS}
FACES = ("face68", "lapa106", "wflw98")  # numbered joints: no sides in their names, no limbs
UNEVEN = ("wholebody133", "animalpose20")  # feet and ears, as published
# Ours, and what `../shared/reference/skeletons.json` calls it. CrowdPose's limbs are ours.
THEIRS = {
    "coco17": "coco",
    "halpe26": "halpe26",
    "mpii16": "mpii",
    "crowdpose14": "crowdpose",
    "wholebody133": "coco_wholebody",
    "hand21": "coco_wholebody_hand",
    "face68": "coco_wholebody_face",
    "lapa106": "lapa",
    "wflw98": "wflw",
    "ap10k17": "ap10k",
    "animalpose20": "animalpose",
}


@pytest.mark.data
@pytest.mark.parametrize("name", SKELETONS)
def test_facts_are_the_published_ones(name):
    path = SHARED / "reference" / "skeletons.json"
    if not path.is_file():
        pytest.skip("../shared/reference is absent")
    theirs, ours = json.loads(path.read_text())["sets"][THEIRS[name]], SKELETONS[name]
    assert list(ours.joints) == theirs["joints"]
    assert sorted(map(list, ours.flip_pairs)) == theirs["flip_pairs"]
    assert list(ours.sigmas) == theirs["sigmas"]
    assert ours.nme_joints == (tuple(theirs["nme_joints"]) if "nme_joints" in theirs else None)
    if name != "crowdpose14":
        assert {frozenset(limb) for limb in ours.limbs} == {frozenset(link) for link in theirs["links"]}
    if "parts" in theirs:
        assert {group: (members[0], members[-1] + 1) for group, members in ours.groups.items()} == {
            group: tuple(ends) for group, ends in theirs["parts"].items()
        }


@pytest.mark.parametrize("name", SKELETONS)
def test_mirroring_joins_left_and_right(name):
    """Every joint named left has its right one as a pair, and no other joint has a pair, but for a face's."""
    skeleton = SKELETONS[name]
    sides = [skeleton.side(i) for i in range(len(skeleton.joints))]
    named = {
        frozenset((i, skeleton.joints.index(joint.replace("left", "right", 1).replace("L_", "R_", 1))))
        for i, joint in enumerate(skeleton.joints)
        if sides[i] == "left"
    }
    numbered = {i for i, joint in enumerate(skeleton.joints) if joint.startswith(("face-", "kpt-"))}
    assert {frozenset(pair) for pair in skeleton.flip_pairs if not set(pair) <= numbered} == named
    order = skeleton.flip_order
    assert [order[order[i]] for i in range(len(order))] == list(range(len(order)))


@pytest.mark.parametrize("name", SKELETONS)
def test_limbs_connect_every_joint_once(name):
    skeleton = SKELETONS[name]
    limbs = [frozenset(limb) for limb in skeleton.limbs]
    assert len(set(limbs)) == len(limbs)
    limbless = set(range(len(skeleton.joints))) if name in FACES else set(skeleton.groups.get("face", ()))
    assert set().union(*limbs) == set(range(len(skeleton.joints))) - limbless
    mirrored = {frozenset(skeleton.flip_order[i] for i in limb) for limb in limbs}
    assert mirrored == set(limbs)


@pytest.mark.parametrize("name", SKELETONS)
def test_sigmas_are_the_same_on_both_sides(name):
    skeleton = SKELETONS[name]
    assert len(skeleton.joints) == len(skeleton.tolerances) == COUNTS[name]
    if name not in UNEVEN:
        assert all(skeleton.tolerances[a] == skeleton.tolerances[b] for a, b in skeleton.flip_pairs if name != "face68")


def test_coco_is_pycocotools():
    cocoeval = pytest.importorskip("pycocotools.cocoeval", reason="pycocotools is not installed")
    assert list(SKELETONS["coco17"].sigmas) == pytest.approx(cocoeval.Params("keypoints").kpt_oks_sigmas.tolist())


def test_sides_are_read_from_names():
    assert [GOOD.side(i) for i in range(3)] == ["left", "right", "middle"]
    animal = SKELETONS["ap10k17"]
    assert [animal.side(i) for i in (0, 1, 2, 13)] == ["left", "right", "middle", "left"]


def test_a_hand_has_no_pairs_and_a_face_no_sigmas():
    assert SKELETONS["hand21"].flip_order == tuple(range(21))
    assert SKELETONS["wflw98"].sigmas == ()
    assert set(SKELETONS["wflw98"].tolerances) == {0.025}


# ---- groups

GROUPED = Skeleton(
    "five",
    ("nose", "left_eye", "right_eye", "left_wrist", "right_wrist"),
    ((1, 2), (3, 4)),
    ((0, 1), (0, 2), (1, 3)),
    (0.1, 0.2, 0.2, 0.3, 0.3),
    groups={"head": (2, 1, 0), "hands": (3, 4)},
    nme_joints=(1, 2),
)


def test_a_part_is_a_set_of_its_own():
    head = GROUPED.part("head")
    assert head == Skeleton(
        "five.head", ("right_eye", "left_eye", "nose"), ((1, 0),), ((2, 1), (2, 0)), (0.2, 0.2, 0.1), {}, (1, 0)
    )
    assert GROUPED.part("hands") == Skeleton("five.hands", ("left_wrist", "right_wrist"), ((0, 1),), (), (0.3, 0.3))


def test_a_part_of_a_set_without_sigmas_is_one_too():
    assert replace(GROUPED, sigmas=()).part("hands").sigmas == (0.025, 0.025)


def test_the_parts_of_a_whole_body_are_the_sets_of_parts():
    """Hands but for their names; a face but for its measure, which a whole body has none of."""
    whole, hand = SKELETONS["wholebody133"], SKELETONS["hand21"]
    assert sorted(joint for members in whole.groups.values() for joint in members) == list(range(133))
    for side in ("left", "right"):
        part = whole.part(f"{side}_hand")
        assert part.joints[1:] == tuple(f"{side}_{joint}" for joint in hand.joints[1:])
        assert (part.flip_pairs, part.limbs, part.sigmas) == ((), hand.limbs, hand.sigmas)
    assert replace(whole.part("face"), name="face68", nme_joints=(36, 45)) == SKELETONS["face68"]
    assert replace(whole.part("body"), name="coco17") == SKELETONS["coco17"]


@pytest.mark.parametrize(
    ("skeleton", "known"), [(GROUPED, "it has head, hands"), (GOOD, "it has none")], ids=["with", "without"]
)
def test_no_such_group(skeleton, known):
    with pytest.raises(InputError, match=f"skeleton '{skeleton.name}' has no group 'tail'; {known}"):
        skeleton.part("tail")


BAD = {
    "no joints": ({"joints": ()}, "joints must be unique and not empty (got [])"),
    "twice the same": ({"joints": ("a", "a", "b")}, "joints must be unique and not empty"),
    "too few sigmas": (
        {"sigmas": (0.1,)},
        "sigmas must be 3 positive numbers of at most 10.0, one per",
    ),
    "sigma of nothing": ({"sigmas": (0.1, 0.0, 0.1)}, "sigmas must be 3 positive numbers"),
    "sigma that is no number": ({"sigmas": (0.1, float("nan"), 0.1)}, "sigmas must be 3 positive numbers"),
    "sigma without end": ({"sigmas": (0.1, float("inf"), 0.1)}, "sigmas must be 3 positive numbers"),
    "a joint in two pairs": (
        {"flip_pairs": ((0, 1), (1, 2))},
        "flip_pairs must name each joint once (joint 1, 'right_hand', is in two)",
    ),
    "a pair twice": ({"flip_pairs": ((0, 1), (1, 0))}, "flip_pairs must name each joint once (joint 0, 'left_hand'"),
    "pair beyond": ({"flip_pairs": ((0, 3),)}, "flip_pairs must join two joints of 0 to 2 (got [0, 3])"),
    "pair with itself": ({"flip_pairs": ((1, 1),)}, "flip_pairs must join two joints of 0 to 2 (got [1, 1])"),
    "no sigmas": (
        {"sigmas": ()},
        "sigmas must be 3 positive numbers of at most 10.0, one per joint (got ()); a set that is measured",
    ),
    "group beyond": ({"groups": {"a": (0, 3)}}, "groups.a must hold joints of 0 to 2, each once (got [0, 3])"),
    "group twice": ({"groups": {"a": (1, 1)}}, "groups.a must hold joints of 0 to 2, each once (got [1, 1])"),
    "group of nothing": ({"groups": {"a": ()}}, "groups.a must hold joints of 0 to 2, each once (got [])"),
    "measure of one joint": ({"nme_joints": (1, 1)}, "nme_joints must join two joints of 0 to 2 (got [1, 1])"),
    "limb before": ({"limbs": ((-1, 0),)}, "limbs must join two joints of 0 to 2 (got [-1, 0])"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_joint_set_is_refused(case):
    change, message = BAD[case]
    with pytest.raises(RecipeError) as caught:
        replace(GOOD, **change)
    assert f"skeleton 'two': {message}" in str(caught.value)


def test_an_unknown_name_lists_the_known():
    with pytest.raises(RecipeError, match=r"must be one of animalpose20, ap10k17, coco17, .*wholebody133 or a table"):
        skeleton_by_name("coco18")
