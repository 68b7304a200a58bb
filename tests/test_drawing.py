"""Drawing: what is on the picture, in which colour, how thick, and what is left out."""

import numpy as np
import pytest

from sdk.errors import InputError
from sdk.media.drawing import confidences, draw_poses
from sdk.media.looks import FINGER_COLOURS, SIDE_COLOURS, parts_of
from sdk.poses import Poses, ScoreScale
from sdk.skeletons import SKELETONS, skeleton_by_name
from tests.support.figures import standing_person

cv2 = pytest.importorskip("cv2")


def grey(height=240, width=320):
    return np.full((height, width, 3), 120, np.uint8)


def poses_of(keypoints, scores=None, skeleton="coco17", **more):
    keypoints = np.asarray(keypoints, np.float32)
    count = len(keypoints)
    scores = np.ones(keypoints.shape[:2], np.float32) if scores is None else np.asarray(scores, np.float32)
    boxes = np.tile(np.array([[40, 20, 280, 220]], np.float32), (count, 1))
    return Poses(keypoints, scores, boxes, np.ones(count, np.float32), skeleton_by_name(skeleton), **more)


def spread(count=1, joints=17, seed=0):
    """Joints far from one another, so that colours can be looked up."""
    rng = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(np.linspace(50, 270, 6), np.linspace(30, 210, 5)), axis=2).reshape(-1, 2)
    return np.stack([rng.permutation(places)[:joints] for _ in range(count)])


def changed(before, after):
    return int((before != after).any(axis=2).sum())


@pytest.mark.parametrize("name", [name for name, s in SKELETONS.items() if len(s.joints) <= 30 and name != "hand21"])
def test_joints_have_the_colour_of_their_side(name):
    skeleton = skeleton_by_name(name)
    keypoints = spread(joints=len(skeleton.joints))
    picture = draw_poses(grey(), poses_of(keypoints, skeleton=name))
    for joint, (x, y) in enumerate(keypoints[0].astype(int)):
        assert tuple(picture[y, x].tolist()) == SIDE_COLOURS[skeleton.side(joint)], skeleton.joints[joint]


def test_an_ellipse_of_one_spread_is_drawn_about_each_joint_on_request():
    keypoints = np.full((1, 17, 2), np.nan)
    keypoints[0, 0] = 160, 120
    poses = poses_of(keypoints, spread=np.full((1, 17, 2), (60, 30), np.float32))
    plain, with_spread = draw_poses(grey(), poses), poses.draw(grey(), spread=True)
    assert (plain[90, 160] == 120).all() and (plain[120, 100] == 120).all()
    for y, x in ((90, 160), (150, 160), (120, 100), (120, 220)):
        assert with_spread[y, x].min() > 170  # the ground is 120, the rim dark
    with pytest.raises(InputError, match="spread cannot be drawn: these poses tell none; make the estimator with"):
        draw_poses(grey(), poses_of(spread()), spread=True)


@pytest.mark.parametrize("threshold", ["0.3", float("nan"), [0.3]], ids=repr)
def test_a_threshold_that_is_no_number_is_refused(threshold):
    with pytest.raises(InputError, match="threshold must be a number, or None for the network's own"):
        draw_poses(grey(), poses_of(spread()), threshold)


@pytest.mark.parametrize("nearer", ["left", "right"])
def test_what_is_nearer_is_drawn_over_what_is_farther(nearer):
    joints = skeleton_by_name("coco17").joints
    wrists = {side: joints.index(f"{side}_wrist") for side in ("left", "right")}
    keypoints, depths = np.full((1, 17, 2), np.nan), np.zeros((1, 17), np.float32)
    for side, joint in wrists.items():
        keypoints[0, joint], depths[0, joint] = (160, 120), -0.3 if side == nearer else 0.3
    picture = draw_poses(grey(), poses_of(keypoints, depths=depths))
    assert tuple(picture[120, 160].tolist()) == SIDE_COLOURS[nearer]


def test_the_frame_is_left_as_it_was():
    frame = grey()
    picture = draw_poses(frame, poses_of(spread()))
    assert (frame == 120).all() and picture is not frame and changed(frame, picture) > 500


def test_a_read_only_frame_is_drawn_on_a_copy():
    frame = grey()
    frame.setflags(write=False)
    assert changed(frame, draw_poses(frame, poses_of(spread()))) > 500


def test_nobody_leaves_the_picture_as_it_is():
    empty = poses_of(np.zeros((0, 17, 2)))
    np.testing.assert_array_equal(draw_poses(grey(), empty), grey())


def test_a_joint_below_the_threshold_and_its_limbs_are_left_out():
    keypoints, scores = spread(), np.ones((1, 17))
    scores[0, 9] = 0.29
    x, y = keypoints[0, 9].astype(int)
    picture = draw_poses(grey(), poses_of(keypoints, scores))
    np.testing.assert_array_equal(picture[y - 3 : y + 4, x - 3 : x + 4], 120)


@pytest.mark.parametrize("seed", range(3))
def test_confidence_shows(seed):
    """A surer person changes the picture more, in area and in contrast."""
    marks = []
    for score in (0.31, 0.5, 0.8):
        picture = draw_poses(grey(), poses_of(spread(seed=seed), np.full((1, 17), score)))
        marks.append(np.abs(picture.astype(int) - 120).sum())
    assert marks[0] < 0.8 * marks[1] < 0.8 * marks[2]


def test_lines_grow_with_the_picture():
    shares = []
    for factor in (1, 2, 4):
        frame = grey(240 * factor, 320 * factor)
        poses = poses_of(spread() * factor)
        poses.boxes[:] *= factor
        shares.append(changed(frame, draw_poses(frame, poses)) / frame[..., 0].size)
    assert max(shares) < 2 * min(shares)  # lines of one width would make it 4


def test_a_small_person_gets_thin_lines():
    big, small = poses_of(spread() * 4), poses_of(spread() / 2)
    big.boxes[:] *= 4
    small.boxes[:] /= 2
    frame = grey(960, 1280)
    share = changed(frame, draw_poses(frame, small)) / changed(frame, draw_poses(frame, big))
    assert share < 0.07  # with lines as thick as the big one's, 0.08


def test_a_limb_between_the_sides_is_of_neither():
    keypoints, scores = np.zeros((1, 17, 2)), np.zeros((1, 17))
    keypoints[0, 5:7], scores[0, 5:7] = [[60, 100], [260, 100]], 1  # the shoulders
    picture = draw_poses(grey(), poses_of(keypoints, scores))
    assert tuple(picture[100, 160].tolist()) == SIDE_COLOURS["middle"]


def test_the_nearer_person_is_on_top():
    keypoints, scores = np.full((2, 17, 2), 100.0), np.zeros((2, 17))
    scores[0, 6] = scores[1, 5] = 1  # a right shoulder, and a left one
    keypoints[0, 16] = 200  # the first stands farther down, hence nearer
    picture = draw_poses(grey(), poses_of(keypoints, scores))
    assert tuple(picture[100, 100].tolist()) == SIDE_COLOURS["right"]


def test_poses_draw_themselves_with_the_same_options():
    frame, poses = grey(), poses_of(spread(), np.linspace(0, 1, 17)[None])
    options = {"boxes": True, "pixel_format": "rgb"}
    np.testing.assert_array_equal(poses.draw(frame, 0.6, **options), draw_poses(frame, poses, 0.6, **options))


def test_ids_are_written():
    plain, named = poses_of(spread()), poses_of(spread(), track_ids=np.array([7], np.int64))
    assert changed(draw_poses(grey(), plain), draw_poses(grey(), named)) > 10


@pytest.mark.parametrize("score", [0.4, 0.9])
@pytest.mark.parametrize("offset", [(0, 0), (0.5, 0.25)], ids=["on a pixel", "between pixels"])
def test_a_small_joint_is_round(score, offset):
    """Its ink lies about as far out along the diagonals as along the axes; a diamond's moment is 0.4."""
    centre, side = np.array([64, 64]) + offset, 128
    scores = np.array([[0, score] + [0] * 15], np.float32)
    picture = draw_poses(grey(side, side), poses_of([[centre] * 17], scores))
    ink = np.abs(picture.astype(float) - 120).max(axis=2)
    y, x = np.mgrid[:side, :side]
    angle, distance = np.arctan2(y - centre[1], x - centre[0]), np.hypot(x - centre[0], y - centre[1])
    fourfold = (ink * distance**4 * np.cos(4 * angle)).sum() / (ink * distance**4).sum()
    assert np.count_nonzero(ink) >= 9 and abs(fourfold) < 0.2


def test_boxes_are_drawn_where_asked():
    poses = poses_of(spread(), np.zeros((1, 17)))
    np.testing.assert_array_equal(draw_poses(grey(), poses), grey())
    picture = draw_poses(grey(), poses, boxes=True)
    for x, y in ((40, 100), (280, 100), (150, 20), (150, 220)):
        assert tuple(picture[y, x].tolist()) == SIDE_COLOURS["middle"]
    np.testing.assert_array_equal(picture[30:210, 50:270], 120)


@pytest.mark.parametrize("box", [[-1e9, -1e9, 1e9, 1e9], [np.nan, 0, 9, 9], [400, 0, 500, 9]], ids=str)
def test_odd_boxes_do_not_break_it(box):
    poses = poses_of(spread(), np.zeros((1, 17)))
    poses.boxes[0] = box
    np.testing.assert_array_equal(draw_poses(grey(), poses, boxes=True), grey())


def test_an_rgb_frame_gives_an_rgb_picture():
    frame = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    expected = draw_poses(frame, poses_of(spread()))
    picture = draw_poses(np.ascontiguousarray(frame[..., ::-1]), poses_of(spread()), pixel_format="rgb")
    np.testing.assert_array_equal(picture[..., ::-1], expected)


def test_an_nv12_frame_gives_a_bgr_picture():
    frame = np.random.default_rng(0).integers(16, 236, (360, 320), np.uint8)
    plain = cv2.cvtColor(frame, cv2.COLOR_YUV2BGR_NV12)
    picture = draw_poses(frame, poses_of(spread()), pixel_format="nv12")
    np.testing.assert_array_equal(picture, draw_poses(plain, poses_of(spread())))


ODD = {
    "wholly outside": [[-500, -500]] * 17,
    "far away": [[1e30, -1e30]] * 17,
    "not a number": [[np.nan, 10]] * 17,
    "infinite": [[np.inf, -np.inf]] * 17,
    "one point": [[30, 30]] * 17,
    "across": [[-1e4, 100], [1e4, 100]] * 8 + [[100, 1e5]],
}


@pytest.mark.parametrize("points", ODD.values(), ids=ODD)
@pytest.mark.parametrize("size_hw", [(240, 320), (1, 1)])
@pytest.mark.parametrize("ids", [None, np.array([12345], np.int64)], ids=["no ids", "ids"])
def test_odd_joints_do_not_break_it(points, size_hw, ids):
    picture = draw_poses(grey(*size_hw), poses_of([points], track_ids=ids))
    assert picture.shape == (*size_hw, 3)


def test_confidences_follow_the_scale():
    scores = np.array([[-1, 0.29, 0.3, 0.55, 0.8, 7]], np.float32)
    np.testing.assert_allclose(confidences(scores, ScoreScale(0.3, 0.8)), [[0, 0, 0.35, 0.675, 1, 1]], rtol=1e-5)
    softmax = np.array([[0.01, 0.02, 0.05]], np.float32)
    np.testing.assert_allclose(confidences(softmax, ScoreScale(0.02, 0.05)), [[0, 0.35, 1]], rtol=1e-5)
    assert (confidences(scores, ScoreScale(0.3, 0.8), threshold=-2) > 0).all()
    assert confidences(scores, ScoreScale(0.3, 0.8), threshold=0.9).tolist() == [[0, 0, 0, 0, 0, 1]]


NO_FRAMES = {
    "nothing": (None, "bgr", "frame is None"),
    "NV12 unnamed": (
        np.zeros((360, 320), np.uint8),
        "bgr",
        r"frame is grey .*; an NV12 frame needs pixel_format='nv12'",
    ),
    "grey, never NV12": (np.zeros((241, 320), np.uint8), "bgr", r"frame is grey .*COLOR_GRAY2BGR\)$"),
    "BGR as NV12": (grey(), "nv12", r"an NV12 frame must have the shape"),
    "an unknown format": (grey(), "yuy2", r"pixel_format must be one of bgr, rgb, nv12.* \(got 'yuy2'\)"),
}


@pytest.mark.parametrize(("frame", "pixel_format", "message"), NO_FRAMES.values(), ids=NO_FRAMES)
def test_a_frame_that_is_none_is_refused(frame, pixel_format, message):
    with pytest.raises(InputError, match=message):
        draw_poses(frame, poses_of(spread()), pixel_format=pixel_format)


# ---- whole bodies

WHOLE = skeleton_by_name("wholebody133")


def whole_body(height_px=500, **more):
    return poses_of(standing_person((10, 10), height_px), skeleton="wholebody133", **more)


def colour_at(picture, point):
    return tuple(picture[round(float(point[1])), round(float(point[0]))].tolist())


def test_parts_of_sets():
    """(kind, joints) in the order they are drawn; every limb is in one part."""
    kinds = {name: [(part.kind, len(part.joints)) for part in parts_of(SKELETONS[name])] for name in SKELETONS}
    assert kinds["wholebody133"] == [("body", 18), ("head", 5), ("hand", 21), ("hand", 21), ("face", 68)]
    assert kinds["hand21"] == [("hand", 21)]
    assert kinds["wflw98"] == [("face", 98)]
    assert kinds["coco17"] == [("body", 17)]
    assert parts_of(WHOLE.part("left_hand"))[0].kind == "hand"
    assert parts_of(WHOLE.part("face"))[0].kind == "face"
    for name, skeleton in SKELETONS.items():
        drawn = sorted((a, b) for part in parts_of(skeleton) for a, b, _ in part.limbs)
        assert drawn == sorted(skeleton.limbs), name


def test_hands_are_coloured_by_finger_and_faces_are_dots():
    poses = whole_body()
    picture = draw_poses(grey(520, 400), poses)
    for joint, name in enumerate(WHOLE.joints):
        finger = next((word for word in FINGER_COLOURS if word in name), None)
        if finger is not None and name[-1] in "24":
            assert colour_at(picture, poses.keypoints[0, joint]) == FINGER_COLOURS[finger], name
    assert colour_at(picture, poses.keypoints[0, 23 + 8]) == pytest.approx(SIDE_COLOURS["middle"], abs=60)  # the chin


@pytest.mark.parametrize("height_px", [120, 250, 800])
def test_hands_and_faces_do_not_run_together(height_px):
    """Between two fingers, and inside the ring of a face's dots, the ground shows, however far away the person is."""
    poses = whole_body(height_px)
    picture = draw_poses(grey(height_px + 20, height_px), poses.part("left_hand"))
    tips = poses.part("left_hand").keypoints[0, [8, 12]]
    between = tips.mean(axis=0)
    assert colour_at(picture, between) == pytest.approx((120, 120, 120), abs=60)
    body, _, hand, _, face = parts_of(WHOLE)
    extents = [float(np.hypot(*np.ptp(poses.keypoints[0, list(part.joints)], axis=0))) for part in (body, hand, face)]
    unit = max(1.0, extents[0] / 52)
    of_body, of_hand, of_face = (
        part.thickness(unit, extent) for part, extent in zip((body, hand, face), extents, strict=True)
    )
    assert of_face < of_hand < of_body == unit


def test_a_part_of_poses_is_drawn_by_itself():
    hand = whole_body().part("left_hand")
    before = grey(520, 400)
    marked = np.argwhere((draw_poses(before, hand) != before).any(axis=2))[:, ::-1]
    low, high = hand.keypoints[0].min(axis=0) - 8, hand.keypoints[0].max(axis=0) + 8
    assert len(marked) > 100
    assert (marked >= low).all() and (marked <= high).all()


# ---- style openpose

# Joint of COCO-17, and the colour of its dot in OpenPose's order, RGB
OPENPOSE = {
    0: (255, 0, 0), 6: (255, 170, 0), 8: (255, 255, 0), 10: (170, 255, 0), 5: (85, 255, 0), 9: (0, 255, 85),
    12: (0, 255, 170), 16: (0, 170, 255), 11: (0, 85, 255), 15: (85, 0, 255), 4: (255, 0, 170), 3: (255, 0, 85),
}  # fmt: skip


def test_openpose_has_dwposes_colours():
    poses = poses_of(standing_person((10, 10), 500)[:, :17])
    picture = draw_poses(grey(520, 400), poses, style="openpose")
    for joint, (red, green, blue) in OPENPOSE.items():
        assert colour_at(picture, poses.keypoints[0, joint]) == (blue, green, red), joint
    shoulders = poses.keypoints[0, [5, 6]]
    assert colour_at(picture, shoulders.mean(axis=0)) == (0, 85, 255)  # the neck
    quarter = 0.75 * shoulders[1] + 0.25 * shoulders[0]  # on the first stick, which is dimmed
    assert colour_at(picture, quarter) == (0, 0, 153)
    assert (picture[0] == 0).all()  # nothing of the frame


def test_openpose_draws_hands_and_faces_over_bodies():
    poses = whole_body()
    picture = draw_poses(grey(520, 512), poses, style="openpose")
    assert colour_at(picture, poses.keypoints[0, 91 + 8]) == (255, 0, 0)  # a finger tip, blue
    assert colour_at(picture, poses.keypoints[0, 23 + 8]) == (255, 255, 255)
    first, second = poses.keypoints[0, [91, 92]]
    assert colour_at(picture, first + 0.4 * (second - first)) == (0, 0, 255)  # the first bone, the first hue: red


def test_openpose_grows_with_the_picture():
    areas = [
        int(
            draw_poses(grey(size, size), poses_of(standing_person((0, 0), size)[:, :17]), style="openpose").any(2).sum()
        )
        for size in (512, 1024)
    ]
    assert areas[1] / areas[0] == pytest.approx(4, rel=0.1)


def test_openpose_of_nobody_is_black_and_of_rgb_is_rgb():
    assert not draw_poses(grey(), poses_of(np.zeros((0, 17, 2))), style="openpose").any()
    poses = poses_of(spread())
    bgr, rgb = (draw_poses(grey(), poses, style="openpose", pixel_format=name) for name in ("bgr", "rgb"))
    np.testing.assert_array_equal(bgr[..., ::-1], rgb)


@pytest.mark.parametrize("skeleton", ["crowdpose14", "mpii16", "halpe26"])
def test_openpose_of_other_bodies(skeleton):
    """Each has shoulders and hips; points that it has not are left out."""
    joints = skeleton_by_name(skeleton).joints
    keypoints = spread(joints=len(joints))
    picture = draw_poses(grey(), poses_of(keypoints, skeleton=skeleton), style="openpose")
    assert colour_at(picture, keypoints[0, joints.index("left_hip")].astype(int)) == (255, 85, 0)


def test_an_unseen_shoulder_takes_the_neck_with_it():
    scores = np.ones((1, 17))
    scores[0, 5] = 0.1
    keypoints = standing_person((10, 10), 500)[:, :17]
    picture = draw_poses(grey(520, 400), poses_of(keypoints, scores), style="openpose")
    assert colour_at(picture, keypoints[0, [5, 6]].mean(axis=0)) == (0, 0, 0)


@pytest.mark.parametrize(
    ("skeleton", "style", "message"),
    [
        ("ap10k17", "openpose", "skeleton 'ap10k17' has none of them; draw it in style overlay"),
        ("coco17", "comic", "style must be one of overlay, openpose (got 'comic')"),
    ],
)
def test_a_style_that_cannot_be_drawn(skeleton, style, message):
    with pytest.raises(InputError) as caught:
        draw_poses(grey(), poses_of(spread(), skeleton=skeleton), style=style)
    assert message in str(caught.value)
