"""Frames and boxes that are wrong, odd or huge: an error in words, or the same poses as without the oddity."""

import numpy as np
import pytest

from sdk import PoseEstimator
from sdk.errors import InputError

pytestmark = pytest.mark.native
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def estimate(small_engine):
    with PoseEstimator(small_engine, device="cpu") as opened:
        yield opened


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


BOXES = np.array([[10, 10, 60, 100], [30.5, 5.25, 90, 110]], np.float32)

BAD_FRAMES = {
    "None": (None, r"frame is None; cv2\.imread and VideoCapture\.read give None"),
    "a path": ("street.jpg", r"frame must be a numpy array, uint8 \(got str\); cv2\.imread reads one from a file"),
    "a list": ([[0, 0, 0]], r"got list"),
    "grey": (noise(20, 30), r"frame is grey \(shape \(20, 30\)\).*COLOR_GRAY2BGR"),
    "grey with an axis": (noise(20, 30, 1), r"frame is grey .*COLOR_GRAY2BGR"),
    "RGBA": (noise(20, 30, 4), r"four channels .*COLOR_BGRA2BGR"),
    "two channels": (noise(20, 30, 2), r"H x W x 3, BGR \(got \(20, 30, 2\)\)"),
    "a batch": (noise(1, 20, 30, 3), r"H x W x 3, BGR \(got \(1, 20, 30, 3\)\)"),
    "channels first": (noise(3, 20, 30), r"H x W x 3, BGR \(got \(3, 20, 30\)\)"),
    "float": (noise(20, 30, 3).astype(np.float32), r"uint8 with grey levels 0\.\.255 \(got float32\).*\* 255"),
    "int64": (noise(20, 30, 3).astype(np.int64), r"got int64"),
    "bool": (noise(20, 30, 3) > 9, r"got bool"),
    "no rows": (noise(0, 30, 3), r"frame is empty \(shape \(0, 30, 3\)\)"),
    "no columns": (noise(20, 0, 3), r"frame is empty"),
    "nothing": (np.zeros(0, np.uint8), r"frame is empty"),
    "a number": (np.uint8(3), r"got uint8"),
    "too wide": (np.zeros((1, 16385, 3), np.uint8), r"at most 16384 pixels a side \(got \(1, 16385, 3\)\)"),
}


@pytest.mark.parametrize(("frame", "message"), BAD_FRAMES.values(), ids=BAD_FRAMES)
def test_a_frame_that_is_none_is_refused(estimate, frame, message):
    with pytest.raises(InputError, match=message):
        estimate(frame, BOXES)
    assert len(estimate(noise(120, 160, 3), BOXES)) == 2  # the estimator is none the worse


def padded_rows(frame):
    wide = np.zeros((frame.shape[0], frame.shape[1] + 13, 3), np.uint8)
    wide[:, : frame.shape[1]] = frame
    return wide[:, : frame.shape[1]]


def read_only(frame):
    frame = frame.copy()
    frame.setflags(write=False)
    return frame


ODD_FRAMES = {
    "rows padded": padded_rows,
    "every second pixel": lambda f: np.repeat(f, 2, axis=1)[:, ::2],
    "upside down": lambda f: f[::-1].copy()[::-1],
    "mirrored view": lambda f: f[:, ::-1].copy()[:, ::-1],
    "channels turned": lambda f: f[..., ::-1].copy()[..., ::-1],
    "Fortran order": np.asfortranarray,
    "transposed": lambda f: f.transpose(1, 0, 2).copy().transpose(1, 0, 2),
    "read-only": read_only,
    "a subclass": lambda f: f.view(type("Image", (np.ndarray,), {})),
    "unaligned": lambda f: np.frombuffer(b"\0" + f.tobytes(), np.uint8, offset=1).reshape(f.shape),
}


@pytest.mark.parametrize("odd", ODD_FRAMES.values(), ids=ODD_FRAMES)
def test_a_frame_in_an_odd_layout_gives_the_same_poses(estimate, odd):
    frame = noise(120, 160, 3)
    view = odd(frame)
    assert np.array_equal(view, frame)
    expected, found = estimate(frame, BOXES), estimate(view, BOXES)
    np.testing.assert_array_equal(found.keypoints, expected.keypoints)
    np.testing.assert_array_equal(found.scores, expected.scores)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 400, 3), (400, 1, 3), (3, 5, 3), (1, 16384, 3)], ids=str)
def test_any_size_is_a_frame(estimate, shape):
    for boxes in (None, BOXES):
        poses = estimate(noise(*shape), boxes)
        assert np.isfinite(poses.keypoints).all() and np.isfinite(poses.scores).all()


BAD_BOXES = {
    "NaN": ([[0, 0, 9, 9], [1, np.nan, 5, 5]], r"box 1 must be finite numbers \(got \[1\.0, nan, 5\.0, 5\.0\]\)"),
    "infinite": ([[0, 0, np.inf, 9]], "box 0 must be finite numbers"),
    "beyond float32": ([[0, 0, 1e300, 9]], "box 0 must be finite numbers"),
    "inverted": ([[9, 0, 1, 9]], r"box 0 has no area: x2 must exceed x1 \(got x1=9\.0, x2=1\.0\)"),
    "inverted in y": ([[0, 0, 9, 9], [0, 9, 9, 1]], r"box 1 has no area: y2 must exceed y1"),
    "zero width": ([[4, 0, 4, 9]], r"box 0 has no area: x2 must exceed x1 \(got x1=4\.0, x2=4\.0\)"),
    "zero height": ([[0, 4, 9, 4]], "box 0 has no area: y2 must exceed y1"),
    "two boxes flat": ([0, 0, 9, 9] * 2, r"must have the shape N x 4, xyxy in pixels \(got \(8,\)\)"),
    "near float32's end": ([[-3e38, -3e38, 3e38, 3e38]], r"box 0 must lie within 2\^30 pixels .*give x1, y1, x2, y2"),
    "with scores": ([[0, 0, 9, 9, 0.9]], r"\(got \(1, 5\)\); give the first four columns, and scores as"),
    "ragged": ([[0, 0, 9], [0, 0, 9, 9]], "must be an N x 4 array of numbers"),
    "texts": ([["a", "b", "c", "d"]], "must be an N x 4 array of numbers"),
    "a table": ({"x": 1}, "must be an N x 4 array of numbers"),
}


@pytest.mark.parametrize(("boxes", "message"), BAD_BOXES.values(), ids=BAD_BOXES)
def test_boxes_that_are_none_are_refused(estimate, boxes, message):
    with pytest.raises(InputError, match=message):
        estimate(noise(120, 160, 3), boxes)


def test_boxes_of_a_tensor_that_requires_grad_are_told(estimate):
    torch = pytest.importorskip("torch")
    with pytest.raises(InputError, match=r"boxes must be an N x 4 array of numbers.*requires grad"):
        estimate(noise(120, 160, 3), torch.tensor(BOXES, requires_grad=True))


def test_scores_without_their_boxes_are_refused(estimate):
    with pytest.raises(InputError, match=r"box_scores must come with the boxes they belong to \(got no boxes\)"):
        estimate(noise(120, 160, 3), box_scores=[0.5])


ODD_BOXES = {
    "partly outside": [[-50, -20, 60, 100], [100, 60, 300, 500]],
    "wholly outside": [[1000, 1000, 1100, 1200], [-300, -300, -200, -100]],
    "larger than the frame": [[-1000, -1000, 2000, 2000]],
    "one hundredth of a pixel": [[10, 10, 10.01, 10.01]],
    "a hair's breadth": [[10, 10, 10.5, 110]],
    "astronomical": [[-1e9, -1e9, 1e9, 1e9]],
    "integers": np.array([[10, 10, 60, 100]]),
    "a tuple": ((10, 10, 60, 100),),
}


@pytest.mark.parametrize("boxes", ODD_BOXES.values(), ids=ODD_BOXES)
def test_boxes_in_odd_places_are_served(estimate, boxes):
    poses = estimate(noise(120, 160, 3), boxes)
    assert len(poses) == len(boxes)
    assert np.isfinite(poses.keypoints).all() and np.isfinite(poses.scores).all()
    np.testing.assert_array_equal(poses.boxes, np.asarray(boxes, np.float32))


@pytest.mark.filterwarnings("error")
def test_boxes_as_far_as_they_may_be_are_served_without_a_warning(estimate):
    poses = estimate(noise(120, 160, 3), [[-(2.0**30), -(2.0**30), 2.0**30, 2.0**30]])
    assert np.isfinite(poses.keypoints).all()


def test_one_bare_box_is_one_person(estimate):
    frame = noise(120, 160, 3)
    alone, listed = estimate(frame, BOXES[0]), estimate(frame, BOXES[:1])
    np.testing.assert_array_equal(alone.boxes, BOXES[:1])
    np.testing.assert_array_equal(alone.keypoints, listed.keypoints)


def test_poses_keep_their_boxes_when_the_buffer_is_used_again(estimate):
    buffer = BOXES.copy()
    poses = estimate(noise(120, 160, 3), buffer)
    buffer[:] = 0
    np.testing.assert_array_equal(poses.boxes, BOXES)


@pytest.mark.parametrize("none", [[], (), np.zeros((0, 4)), np.zeros(0), [[]]], ids=repr)
def test_no_boxes_are_nobody(estimate, none):
    assert estimate(noise(20, 30, 3), none).keypoints.shape == (0, 14, 2)


def test_five_hundred_boxes_are_five_hundred_persons(estimate):
    rng = np.random.default_rng(5)
    corner = rng.uniform(-50, 150, (500, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 100, (500, 2))], axis=1).astype(np.float32)
    frame = noise(120, 160, 3)
    poses = estimate(frame, boxes)
    assert poses.keypoints.shape == (500, 14, 2)
    for row in (0, 7, 8, 255, 499):
        np.testing.assert_array_equal(estimate(frame, boxes[[row]]).keypoints[0], poses.keypoints[row])
