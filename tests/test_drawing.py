"""Drawing: what is on the picture, in which colour, how thick, and what is left out."""

import numpy as np
import pytest

from sdk.errors import InputError
from sdk.media.drawing import SIDE_COLOURS, confidences, draw_poses
from sdk.poses import Poses, ScoreScale
from sdk.skeletons import SKELETONS, skeleton_by_name

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


@pytest.mark.parametrize("name", [name for name, skeleton in SKELETONS.items() if len(skeleton.joints) <= 30])
def test_joints_have_the_colour_of_their_side(name):
    skeleton = skeleton_by_name(name)
    keypoints = spread(joints=len(skeleton.joints))
    picture = draw_poses(grey(), poses_of(keypoints, skeleton=name))
    for joint, (x, y) in enumerate(keypoints[0].astype(int)):
        assert tuple(picture[y, x].tolist()) == SIDE_COLOURS[skeleton.side(joint)], skeleton.joints[joint]


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
