"""Annotation files: the conventions of boxes, the real formats, and every way a file or a record can be bad."""

import json
from dataclasses import replace

import numpy as np
import pytest

from sdk.errors import DatasetError
from sdk.evaluate.datasets.boxes import boxes_from_annotations, boxes_from_mpii, convention_of
from sdk.evaluate.datasets.dataset import DatasetOptions, limited
from sdk.evaluate.datasets.loading import load_dataset
from sdk.evaluate.scores.scoring import _crop_areas
from sdk.skeletons import skeleton_by_name
from tests.support.engines import SMALL

CROWD_RECIPE = SMALL  # crowdpose14
COCO_RECIPE = replace(SMALL, skeleton=skeleton_by_name("coco17"))
MPII_RECIPE = replace(SMALL, skeleton=skeleton_by_name("mpii16"))
RECIPES = {"coco": COCO_RECIPE, "crowdpose": CROWD_RECIPE, "lsp": CROWD_RECIPE, "mpii": MPII_RECIPE}

BOXES = {  # xywh in a picture of 100 x 80 -> xyxy by convention
    "inside": ((10, 20, 30, 40), {"paper": (10, 20, 39, 59), "mmpose": (10, 20, 40, 60), "plain": (10, 20, 40, 60)}),
    "over-the-left": ((-5, 0, 30, 40), {"paper": (0, 0, 29, 39), "mmpose": (0, 0, 25, 40), "plain": (-5, 0, 25, 40)}),
    "over-the-right": (
        (90, 70, 30, 40),
        {"paper": (90, 70, 99, 79), "mmpose": (90, 70, 99, 79), "plain": (90, 70, 120, 110)},
    ),
    "a-pixel": ((10, 20, 1, 1), {"paper": (10, 20, 10, 20), "mmpose": (10, 20, 11, 21), "plain": (10, 20, 11, 21)}),
}


@pytest.mark.parametrize("convention", ["paper", "mmpose", "plain"])
@pytest.mark.parametrize("case", BOXES)
def test_annotation_boxes_by_convention(case, convention):
    xywh, expected = BOXES[case]
    got = boxes_from_annotations(np.array([xywh], float), np.array([[100.0, 80.0]]), convention)
    assert got[0].tolist() == list(expected[convention])


@pytest.mark.parametrize(
    ("layout", "convention"), [("simcc", "paper"), ("tokenpose", "paper"), ("mmpose", "mmpose"), ("sdk", "plain")]
)
def test_the_layout_chooses_the_convention(layout, convention):
    assert convention_of(replace(SMALL, layout=layout)) == convention


def test_mpii_boxes_are_0_based_moved_down_and_200_px_a_unit():
    # centre (100, 200), 1-based, scale 2: moved down by 30, to (99, 229); half a side is 200
    assert boxes_from_mpii(np.array([[100.0, 200.0]]), np.array([2.0]))[0].tolist() == [-101, 29, 299, 429]


def annotation(number=1, image=1, **changes):
    """A usable annotation of a person with all 14 joints."""
    points = [value for k in range(14) for value in (10 + k, 20 + k, 2)]
    record = {"id": number, "image_id": image, "category_id": 1, "iscrowd": 0, "area": 900.0}
    return {**record, "keypoints": points, "bbox": [5, 5, 30, 40], **changes}


@pytest.fixture
def folder(tmp_path):
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / name).write_bytes(b"\xff\xd8")
    return tmp_path


def table(annotations, images=("a.jpg", "b.jpg"), **changes):
    pictures = [{"id": n, "file_name": name, "width": 100, "height": 80} for n, name in enumerate(images, 1)]
    joints = list(skeleton_by_name("crowdpose14").joints)
    return {
        "images": pictures,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person", "keypoints": joints}],
        **changes,
    }


def load(folder, content, kind="lsp", recipe=CROWD_RECIPE, detections=None, **options):
    path = folder / "annotations.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    found = None
    if detections is not None:
        found = folder / "detections.json"
        found.write_text(detections if isinstance(detections, str) else json.dumps(detections))
    return load_dataset(DatasetOptions(kind, path, folder, found, **options), recipe)


KEYPOINTS = "annotation without a finite keypoint for each joint"
UNUSABLE = {  # annotation -> the word it is counted under, and whether its truth still counts
    "no-visible-joint": (annotation(2, keypoints=[0] * 42), "person without a visible joint, not cropped", True),
    "zero-area-box": (annotation(2, bbox=[5, 5, 0, 40]), "zero-area box, person not cropped", True),
    "box-outside-the-picture": (annotation(2, bbox=[500, 5, 30, 40]), None, True),
    "no-box": (annotation(2, bbox=None), "annotation without a finite box", False),
    "box-of-three": (annotation(2, bbox=[1, 2, 3]), "annotation without a finite box", False),
    "infinite-box": (annotation(2, bbox=[1, 2, float("inf"), 3]), "annotation without a finite box", False),
    "box-of-texts": (annotation(2, bbox=["a", 2, 3, 4]), "annotation without a finite box", False),
    "image-a-list": (annotation(2, image=[1]), "annotation of an unknown image", False),
    "keypoints-a-text": (annotation(2, keypoints="x"), KEYPOINTS, False),
    "no-keypoints": (annotation(2, keypoints=None), KEYPOINTS, False),
    "keypoints-of-17": (
        annotation(2, keypoints=[1] * 51),
        KEYPOINTS,
        False,
    ),
    "nan-keypoint": (
        annotation(2, keypoints=[float("nan")] * 42),
        KEYPOINTS,
        False,
    ),
    "unknown-image": (annotation(2, image=77), "annotation of an unknown image", False),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_an_unusable_annotation_is_counted_and_the_rest_goes_on(folder, case):
    record, word, in_truth = UNUSABLE[case]
    dataset = load(folder, table([annotation(1), record]))
    outside = word is None  # 'plain' boxes are not clipped: such a person is cropped from black
    assert len(dataset) == (2 if outside else 1)
    assert dataset.problems.counts == ({} if outside else {word: 1})
    assert len(dataset.truth.names) == (2 if in_truth else 1)
    if word:
        assert "annotation 2" in dataset.problems.lines()[0]


def test_a_crowd_region_is_truth_but_not_a_person(folder):
    dataset = load(folder, table([annotation(1), annotation(2, iscrowd=1, keypoints=[])]))
    assert len(dataset) == 1
    assert dataset.truth.crowd.tolist() == [False, True]
    assert dataset.problems.counts == {}


def test_a_missing_picture_leaves_its_persons_and_truth_out(folder):
    dataset = load(
        folder, table([annotation(1, 1), annotation(2, 2), annotation(3, 3)], ("a.jpg", "gone.jpg", "c.jpg"))
    )
    assert [picture.path.name for picture in dataset.pictures] == ["a.jpg", "c.jpg"]
    assert dataset.truth.names == ("annotation 1", "annotation 3")
    assert dataset.picture.tolist() == dataset.truth.picture.tolist() == dataset.row.tolist() == [0, 1]
    assert dataset.problems.counts == {"picture missing, left out of every figure": 1}


def test_limit_keeps_the_first_pictures_that_exist(folder):
    content = table([annotation(n, n) for n in (3, 2, 1)], ("gone.jpg", "b.jpg", "c.jpg"))
    dataset = load(folder, content, limit=1)
    assert [picture.path.name for picture in dataset.pictures] == ["b.jpg"]
    assert [dataset.truth.names[row] for row in dataset.row] == ["annotation 2"]


def test_without_area_half_the_box_is_taken_and_said(folder):
    record = annotation(1)
    del record["area"]
    dataset = load(folder, table([record]))
    assert dataset.truth.areas_px2.tolist() == pytest.approx([0.53 * 30 * 40])
    assert dataset.notes == ("1 annotations have no area: 0.53 of the box is taken",)


def test_persons_come_in_order_of_pictures_with_their_own_truth(folder):
    records = [annotation(n, 1 + n % 2, bbox=[n, 5, 30, 40]) for n in range(6)]
    dataset = load(folder, table(records))
    assert dataset.picture.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.boxes_xyxy[:, 0].tolist() == [0, 2, 4, 1, 3, 5]
    for person, row in enumerate(dataset.row):
        assert dataset.truth.boxes_xyxy[row, 0] == dataset.boxes_xyxy[person, 0]


def test_only_persons_are_persons(folder):
    kinds = [{"id": 9, "name": "dog", "keypoints": ["tail"]}, {"id": 4, "name": "person", "keypoints": JOINTS}]
    content = table([annotation(1, category_id=4), annotation(2, category_id=9)], categories=kinds)
    assert load(folder, content).truth.names == ("annotation 1",)
    found = [detection(category_id=4), detection(category_id=1), detection(category_id=9)]
    assert len(load(folder, content, detections=found)) == 1


def detection(image=1, bbox=(1, 2, 30, 40), score=0.5, **more):
    return {"image_id": image, "category_id": 1, "bbox": list(bbox), "score": score, **more}


def test_detections_are_taken_as_they_are_and_bad_ones_counted(folder):
    records = [
        detection(2), detection(1, (-5, 2, 30, 40), 0.25), detection(9), detection(bbox=(1, 2, 0, 4)),
        detection(bbox=(1, 2)), detection(score=None), detection(category_id=3),
    ]  # fmt: skip
    dataset = load(folder, table([annotation(1)]), detections=records)
    assert dataset.boxes == "detected"
    assert dataset.picture.tolist() == [0, 1]
    assert dataset.boxes_xyxy[0].tolist() == [-5, 2, 25, 42] and dataset.box_scores.tolist() == [0.25, 0.5]
    assert dataset.row.tolist() == [-1, -1]
    assert dataset.problems.counts == {
        "detection of an unknown image": 1,
        "detection with a zero-area box": 1,
        "detection without a finite box and score": 2,
    }


def test_limiting_twice_keeps_rows_pointing_at_their_truth(folder):
    dataset = load(folder, table([annotation(n, n) for n in (1, 2, 3)], ("a.jpg", "b.jpg", "c.jpg")))
    dataset = limited(limited(dataset, np.array([False, True, True])), np.array([False, True]))
    assert dataset.truth.names == ("annotation 3",) and dataset.row.tolist() == [0] and dataset.picture.tolist() == [0]


def test_the_area_of_a_crop_is_that_of_the_widened_and_padded_box(folder):
    dataset = load(folder, table([annotation(1, bbox=[5, 5, 30, 40]), annotation(2, bbox=[5, 5, 60, 40])]))
    # crops of 48 x 64: the first box has their aspect, the second becomes 60 x 80; both are padded by 1.25
    assert _crop_areas(dataset, CROWD_RECIPE).tolist() == pytest.approx([1.25**2 * 1200, 1.25**2 * 4800])


JOINTS = list(skeleton_by_name("crowdpose14").joints)
REFUSED = {
    "no-file": (lambda f: load_dataset(DatasetOptions("lsp", f / "no.json", f), CROWD_RECIPE), "cannot be read"),
    "no-folder": (
        lambda f: load_dataset(DatasetOptions("lsp", f / "no.json", f / "no"), CROWD_RECIPE),
        "folder of images",
    ),
    "not-json": (lambda f: load(f, "{"), "is not JSON"),
    "annotations-of-numbers": (
        lambda f: load(f, table([5], categories=[{"keypoints": 5}])),
        "key 'annotations' must be a list of tables",
    ),
    "a-list": (lambda f: load(f, []), "key 'images' must be a list of tables"),
    "annotations-missing": (lambda f: load(f, {"images": [], "categories": []}), "key 'annotations'"),
    "no-annotations": (lambda f: load(f, table([])), "no person is left"),
    "nothing-usable": (lambda f: load(f, table([annotation(1, bbox=None)])), r"finite box: 1 \(annotation 1\)"),
    "no-picture-there": (
        lambda f: load(f, table([annotation(1)], ("x.jpg",))),
        r"none of the 1 pictures is in .* \(first missing",
    ),
    "wrong-joint-count": (
        lambda f: load(f, table([annotation(1)], categories=[{"keypoints": ["nose"]}])),
        r"lacks joint 'left_shoulder' and 13 more of the recipe's skeleton \(it lists nose\)",
    ),
    "some-joints": (
        lambda f: load(f, table([annotation(1)], categories=[{"keypoints": ["nose", "left_shoulder"]}])),
        r"lacks joint 'right_shoulder' and 12 more .*; or, to measure the joints that it has, --partly \(`partly=",
    ),
    "dataset-of-other-joints": (
        lambda f: load(f, table([annotation(1)]), "coco"),
        "joints of 'coco17' and the engine those of 'crowdpose14'",
    ),
    "crowdpose-without-index": (lambda f: load(f, table([annotation(1)]), "crowdpose"), "image 1 has no 'crowdIndex'"),
    "wrong-joints-partly": (
        lambda f: load(f, table([annotation(1)], categories=[{"keypoints": ["chin"]}]), partly=True),
        r"lacks joint 'left_shoulder' and 13 more .* with the data's joint set$",
    ),
    "crowdpose-partly": (
        lambda f: load(f, table([]), "crowdpose", partly=True),
        "partly is for datasets lsp and custom",
    ),
    "unknown-kind": (lambda f: load(f, table([]), "aic"), "dataset must be one of coco"),
    "limit-0": (lambda f: load(f, table([annotation(1)]), limit=0), "at least one picture"),
    "detections-a-table": (lambda f: load(f, table([annotation(1)]), detections={}), "detections must be a list"),
    "detections-empty": (lambda f: load(f, table([annotation(1)]), detections=[]), "no person is left"),
    "detections-not-json": (lambda f: load(f, table([annotation(1)]), detections="["), "detection file .* is not JSON"),
    "mpii-a-table": (lambda f: load(f, {}, "mpii", MPII_RECIPE), "must be a list of tables"),
    "mpii-with-detections": (lambda f: load(f, [], "mpii", MPII_RECIPE, detections=[]), "leave the detections out"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_make_every_figure_wrong_is_refused(folder, case):
    call, message = REFUSED[case]
    with pytest.raises(DatasetError, match=message):
        call(folder)


def mpii_record(image="a.jpg", **changes):
    joints = [[10.0 + k, 20.0 + k] for k in range(16)]
    return {"image": image, "center": [50.0, 60.0], "scale": 0.5, "joints": joints, "joints_vis": [1] * 16, **changes}


def test_mpii_counts_from_1_and_takes_head_boxes(folder):
    hidden = mpii_record("b.jpg", head_box=[0, 0, 30, 40], joints_vis=[0] * 16)
    dataset = load(folder, [mpii_record(head_box=[0, 0, 3, 4]), hidden, {"image": "c.jpg"}], "mpii", MPII_RECIPE)
    assert dataset.truth.keypoints[0, 0].tolist() == [9, 19, 1]
    assert dataset.truth.head_px.tolist() == pytest.approx([3, 30])
    assert dataset.notes == ()
    assert list(dataset.problems.counts.values()) == [1]


def test_mpii_without_head_boxes_says_so(folder):
    dataset = load(folder, [mpii_record()], "mpii", MPII_RECIPE)
    assert dataset.truth.head_px.tolist() == pytest.approx([2**0.5])  # joints 8 and 9 lie (1, 1) apart
    assert "not MPII's measure" in dataset.notes[0]


def test_mpii_head_boxes_from_the_mat_file(folder):
    io = pytest.importorskip("scipy.io")
    boxes = np.array([[[10, 0], [20, 0]], [[40, 6], [60, 8]]], float)  # corner, xy, person
    io.savemat(folder / "gt.mat", {"headboxes_src": boxes})
    records = [mpii_record(), mpii_record("b.jpg")]
    dataset = load(folder, records, "mpii", MPII_RECIPE, head_boxes=folder / "gt.mat")
    assert dataset.truth.head_px.tolist() == pytest.approx([30, 6])
    with pytest.raises(DatasetError, match="must be 2 x 2 x 1"):
        load(folder, records[:1], "mpii", MPII_RECIPE, head_boxes=folder / "gt.mat")


SAMPLES = {  # annotations, images, detections -> persons, pictures, truth rows
    "coco": ("coco/test_coco.json", "coco", None, (12, 4, 14)),
    "coco-detected": ("coco/test_coco.json", "coco", "coco/test_coco_det_AP_H_56.json", (118, 4, 14)),
    "crowdpose": ("crowdpose/test_crowdpose.json", "crowdpose", None, (4, 2, 5)),
    "crowdpose-detected": (
        "crowdpose/test_crowdpose.json",
        "crowdpose",
        "crowdpose/test_crowdpose_det_AP_40.json",
        (6, 2, 5),
    ),
    "mpii": ("mpii/test_mpii.json", "mpii", None, (5, 5, 5)),
}


@pytest.mark.data
@pytest.mark.parametrize("case", SAMPLES)
def test_real_files(shared, case):
    annotations, images, detections, expected = SAMPLES[case]
    samples, kind = shared / "data" / "samples", case.removesuffix("-detected")
    found = None if detections is None else samples / detections
    dataset = load_dataset(DatasetOptions(kind, samples / annotations, samples / images, found), RECIPES[kind])
    assert (len(dataset), len(dataset.pictures), len(dataset.truth.names)) == expected


def test_the_convention_can_be_chosen(folder):
    path = folder / "annotations.json"
    path.write_text(json.dumps(table([annotation(1, bbox=[-5, 5, 30, 40])])))
    options = DatasetOptions("lsp", path, folder, convention="paper")
    dataset = load_dataset(options, CROWD_RECIPE)
    assert dataset.boxes_xyxy[0].tolist() == [0, 5, 29, 44] and dataset.convention == "paper"
