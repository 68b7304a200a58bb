"""PoseEstimator: exactness against the authors' outputs, boxes and their absence, chunks, flip, tracking."""

from dataclasses import replace

import numpy as np
import pytest

from sdk import PoseEstimator
from sdk.errors import InputError
from sdk.geometry import crop_affines
from sdk.people.tracking import Tracker
from sdk.runtime import opening
from sdk.runtime.opening import engine_from
from sdk.runtime.pipeline import CpuPipeline
from tests.support.engines import SMALL, SMALL_HEATMAP, pooled_heatmap_graph, wrapped_engine
from tests.support.frames import noise, random_boxes

pytestmark = pytest.mark.native
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
cv2 = pytest.importorskip("cv2")


@pytest.fixture(scope="module")
def heatmap_engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heatmap")
    graph = pooled_heatmap_graph(folder / "g.onnx", SMALL_HEATMAP)
    return engine_from(wrapped_engine(graph, folder / "e", SMALL_HEATMAP))


class Recorder:
    """A session that keeps the crops it is given, and answers with the outputs it was made with."""

    device, max_batch = "cpu", 64

    def __init__(self, engine, outputs):
        self.engine, self.outputs, self.crops = engine, outputs, []

    @property
    def recipe(self):
        return self.engine.manifest.recipe

    def run(self, crops):
        self.crops.append(crops)
        return tuple(output[: len(crops)] for output in self.outputs)

    def close(self):
        pass


def recorded(monkeypatch, engine, recipe, outputs):
    """An estimator of `recipe` around a Recorder."""
    session = Recorder(replace(engine, manifest=replace(engine.manifest, recipe=recipe)), outputs)
    monkeypatch.setattr(opening, "open_pipeline", lambda *_, **__: CpuPipeline(session))
    return PoseEstimator("any"), session


def sized(height, width, split_ratio, score, **changes):
    source = replace(SMALL.input, height=height, width=width, **changes)
    output = replace(SMALL.output, split_ratio=split_ratio, score=score)
    return replace(SMALL, name=f"sized-{height}x{width}", input=source, output=output)


# --- exactness -------------------------------------------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.parametrize("size_hw", [(256, 192), (64, 64), (128, 128)], ids=str)
def test_crops_are_the_authors(monkeypatch, small, parity, lspet, size_hw):
    """Within one grey level of cv2.warpAffine's crop by mmpose's matrix, and within a quarter on average."""
    height, width = size_hw
    recipe = sized(height, width, 2.0, "min_logit", mean=(0.0,) * 3, std=(1.0,) * 3, colour="bgr")
    bins = [np.zeros((1, 14, side * 2), np.float32) for side in (width, height)]
    estimate, session = recorded(monkeypatch, small, recipe, bins)
    table = np.load(parity / "preprocess.npz")
    names = sorted({key.rsplit(".", 1)[0] for key in table if f"_{height}x{width}." in key})
    assert len(names) >= 4
    for name in names:
        frame = cv2.imread(str(lspet / "images" / f"{name.split('_')[0]}.jpg"))
        estimate(frame, table[f"{name}.box_xyxy"][None])
        ours = session.crops[-1][0].transpose(1, 2, 0)
        difference = np.abs(ours - table[f"{name}.crop"])
        assert difference.max() <= 1.0 + 1e-4 and difference.mean() <= 0.25, name


DECODINGS = {"256x192_k2": 2.0, "64x64_k3": 3.0, "384x288_k1.5": 1.5, "128x128_k2": 2.0}


@pytest.mark.data
@pytest.mark.parametrize(("case", "k"), DECODINGS.items(), ids=DECODINGS)
@pytest.mark.parametrize("rule", ["min_logit", "min_softmax"])
def test_decoding_is_the_authors(monkeypatch, small, parity, case, k, rule):
    """Keypoints and scores of mmpose (min_logit) and of the paper (min_softmax), for four persons in one batch."""
    table = np.load(parity / "decode.npz")
    height, width = map(int, case.split("_")[0].split("x"))
    recipe = replace(sized(height, width, k, rule, box_padding=1.0), skeleton=replace_joints(17))
    outputs = table[f"{case}.simcc_x"], table[f"{case}.simcc_y"]
    estimate, _ = recorded(monkeypatch, small, recipe, outputs)
    keypoints, scores = estimate(noise(), np.tile([0, 0, width, height], (4, 1)))  # the crop is the frame's corner
    if rule == "min_logit":
        bins, expected_scores = table[f"{case}.mmpose_bins"], table[f"{case}.mmpose_scores"]
        judged = expected_scores > 0  # mmpose gives -1 where the score is not positive
        np.testing.assert_allclose(keypoints[judged], (bins / k)[judged], atol=1e-3)
        np.testing.assert_allclose(
            keypoints[:1][judged[:1]], table[f"{case}.mmpose_codec_keypoints_0"][judged[:1]], atol=1e-3
        )
    else:
        expected_scores = table[f"{case}.paper_scores"]
        np.testing.assert_allclose(keypoints, table[f"{case}.paper_keypoints"], atol=1e-3)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-5, atol=1e-6)


def replace_joints(count):
    from sdk.skeletons import skeleton_by_name

    skeleton = skeleton_by_name("coco17")
    assert len(skeleton.joints) == count
    return skeleton


def reference_persons(engine, frame, boxes, *, flip=False):
    """The definition in float64, from cv2 crops: N x K x 3, and each row's margin between best and second bin."""
    recipe = engine.manifest.recipe
    height, width = recipe.input.size_hw
    import onnxruntime

    session = onnxruntime.InferenceSession(str(engine.graph_path), providers=["CPUExecutionProvider"])
    persons = []
    for affine in crop_affines(boxes, (height, width), recipe.input.box_padding):
        crop = cv2.warpAffine(frame, affine, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)[
            ..., ::-1
        ].astype(np.float64)
        crop = ((crop - recipe.input.mean) / recipe.input.std).transpose(2, 0, 1)[None].astype(np.float32)
        axes = [axis[0].astype(np.float64) for axis in session.run(None, {"input": crop})]
        if flip:
            mirrored = [axis[0] for axis in session.run(None, {"input": crop[..., ::-1].copy()})]
            order = list(recipe.skeleton.flip_order)
            turned = [mirrored[0][order][:, ::-1], mirrored[1][order]]
            axes = [(a + b) / 2 for a, b in zip(axes, turned, strict=True)]
        xy = np.stack([axis.argmax(axis=1) for axis in axes], axis=1) / recipe.output.split_ratio
        score = np.minimum(axes[0].max(axis=1), axes[1].max(axis=1))
        persons.append(np.concatenate([xy @ affine[:, :2].T + affine[:, 2], score[:, None]], axis=1))
    return np.array(persons)


@pytest.mark.parametrize("flip", [False, True], ids=["plain", "flip"])
def test_the_whole_way_follows_its_definition(small, flip):
    frame, boxes = noise(1), random_boxes(6, 1)
    expected = reference_persons(small, frame, boxes, flip=flip)
    with PoseEstimator(small, device="cpu", flip_test=flip) as estimate:
        poses = estimate(frame, boxes)
    bin_px = crop_affines(boxes, (64, 48), 1.25)[:, :1, 0] / 2
    near = np.abs(poses.keypoints - expected[..., :2]).max(axis=2) <= bin_px  # crops differ by a grey level
    assert near.mean() > 0.95
    np.testing.assert_allclose(poses.scores, expected[..., 2], atol=0.05)


@pytest.mark.parametrize("refine", ["parabola", "dark", "expectation"])
def test_refinement_stays_within_half_a_bin(small, refine):
    frame, boxes = noise(2), random_boxes(5, 2)
    with PoseEstimator(small, device="cpu") as plain, PoseEstimator(small, device="cpu", refine=refine) as refined:
        moved = np.abs(refined(frame, boxes).keypoints - plain(frame, boxes).keypoints)
    half_bin_px = crop_affines(boxes, (64, 48), 1.25)[:, 0, 0] / 4
    assert (moved <= half_bin_px[:, None, None] + 1e-3).all() and moved.max() > 0


# --- boxes and their absence -----------------------------------------------------------------------------------------


def test_without_boxes_the_frame_is_one_person(small):
    frame = noise()
    with PoseEstimator(small, device="cpu") as estimate:
        alone, framed = estimate(frame), estimate(frame, [[0, 0, 160, 120]])
    np.testing.assert_array_equal(alone.keypoints, framed.keypoints)
    np.testing.assert_array_equal(alone.boxes, [[0, 0, 160, 120]])
    assert alone.track_ids is None and alone.box_scores.tolist() == [1.0]


def test_a_detector_gives_boxes_and_scores(small):
    seen = []

    def detector(frame):
        seen.append(frame.shape)
        return [[10, 10, 60, 100], [50, 5, 120, 110]], [0.9, 0.4]

    with PoseEstimator(small, device="cpu", detector=detector) as estimate:
        poses = estimate(noise())
        assert len(poses) == 2 and seen == [(120, 160, 3)]
        np.testing.assert_allclose(poses.box_scores, [0.9, 0.4])
        assert poses.timings_ms["detect"] >= 0
        assert len(estimate(noise(), random_boxes(3))) == 3 and len(seen) == 1  # given boxes come first


def test_a_detector_that_finds_nobody_gives_nobody(small):
    with PoseEstimator(small, device="cpu", detector=lambda _: (np.zeros((0, 4)), np.zeros(0))) as estimate:
        assert estimate(noise()).keypoints.shape == (0, 14, 2)


def test_nobody_costs_nothing(small):
    with PoseEstimator(small, device="cpu", tracker=True) as estimate:
        poses = estimate(noise(), [])
        assert set(poses.timings_ms) == {"total", "track"}  # neither crop nor network nor decode ran
    assert poses.keypoints.shape == (0, 14, 2) and poses.scores.shape == (0, 14)
    assert poses.boxes.shape == (0, 4) and poses.box_scores.shape == (0,) and poses.track_ids.shape == (0,)
    assert poses.to_coco(1) == []


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 40])
def test_chunks_drop_nobody_and_keep_the_order(small, count):
    frame, boxes = noise(count), random_boxes(count, count)
    with PoseEstimator(small, device="cpu") as estimate:
        together = estimate(frame, boxes)
        assert len(together) == count
        for row in range(count):
            alone = estimate(frame, boxes[row : row + 1])
            np.testing.assert_array_equal(alone.keypoints[0], together.keypoints[row])
            np.testing.assert_allclose(alone.scores[0], together.scores[row], atol=1e-5)
    np.testing.assert_array_equal(together.boxes, boxes)


def test_box_scores_are_kept_and_checked(small):
    with PoseEstimator(small, device="cpu") as estimate:
        poses = estimate(noise(), random_boxes(2), box_scores=[0.25, 0.5])
        assert poses.box_scores.tolist() == [0.25, 0.5] and poses.box_scores.dtype == np.float32
        for wrong in ([1.0], [1.0, np.nan], ["a", "b"]):
            with pytest.raises(InputError, match="box_scores must be 2"):
                estimate(noise(), random_boxes(2), box_scores=wrong)


def test_shapes_types_and_unpacking(small):
    with PoseEstimator(small, device="cpu") as estimate:
        poses = estimate(noise(), random_boxes(3))
    keypoints, scores = poses
    assert keypoints.shape == (3, 14, 2) and scores.shape == (3, 14)
    for array in (keypoints, scores, poses.boxes, poses.box_scores):
        assert array.dtype == np.float32 and array.flags.c_contiguous
    assert {"crop", "network", "decode", "total"} == set(poses.timings_ms)
    assert poses.timings_ms["total"] >= poses.timings_ms["network"] > 0


# --- tracking --------------------------------------------------------------------------------------------------------


class Follower(CpuPipeline):
    """A pipeline whose joints lie where a walker is, if the crop's centre is near; else they score nothing."""

    walker_xy = np.array([60.0, 60.0])

    def run(self, frame, affines, *, flip=False):
        rng = np.random.default_rng(0)
        shape = rng.uniform(-18, 18, (14, 2))
        centres = affines[:, :, 2] + affines[:, [0, 1], [0, 1]] * [24, 32]
        persons = np.zeros((len(affines), 14, 3), np.float32)
        persons[..., :2] = self.walker_xy + shape
        persons[..., 2] = (np.abs(centres - self.walker_xy).max(axis=1) < 40)[:, None]
        return persons, {}


@pytest.fixture
def follower(small, monkeypatch):
    from sdk.runtime.ort_session import OrtSession

    pipeline = Follower(OrtSession(small))
    monkeypatch.setattr(opening, "open_pipeline", lambda *_, **__: pipeline)
    return pipeline


def test_previous_joints_give_the_next_box(follower):
    follower.walker_xy = np.array([80.0, 60.0])
    with PoseEstimator(tracker=True) as estimate:
        first = estimate(noise())
        np.testing.assert_array_equal(first.boxes, [[0, 0, 160, 120]])
        for step in range(5):
            follower.walker_xy = np.array([80.0 + 4 * step, 60.0])
            poses = estimate(noise())
            assert poses.track_ids.tolist() == [1] and poses.boxes[0, 2] - poses.boxes[0, 0] < 60
        follower.walker_xy = np.array([900.0, 900.0])  # gone: the next frame is looked at as a whole
        estimate(noise())
        np.testing.assert_array_equal(estimate(noise()).boxes, [[0, 0, 160, 120]])
        estimate.reset_tracks()
        follower.walker_xy = np.array([80.0, 60.0])
        assert estimate(noise()).track_ids.tolist() == [1]


def test_between_detections_boxes_come_from_the_joints(follower):
    calls = []

    def detector(frame):
        calls.append(1)
        return [[40, 40, 80, 80]], [0.7]

    with PoseEstimator(detector=detector, tracker=Tracker(), detect_every=3) as estimate:
        scores = [float(estimate(noise()).box_scores[0]) for _ in range(7)]
        assert len(calls) == 3 and scores == pytest.approx([0.7, 0.7 * 0.98, 0.7 * 0.98**2] * 2 + [0.7])
        estimate.reset_tracks()  # another video begins with a detection, and so do its turns
        again = [float(estimate(noise()).box_scores[0]) for _ in range(4)]
    assert again == pytest.approx([0.7, 0.7 * 0.98, 0.7 * 0.98**2, 0.7])


def test_without_detector_followed_persons_keep_the_score_of_the_boxes_they_came_with(follower):
    with PoseEstimator(tracker=True) as estimate:
        assert estimate(noise(), [[40, 40, 80, 80]], box_scores=[0.4]).box_scores.tolist() == pytest.approx([0.4])
        assert [estimate(noise()).box_scores.tolist() for _ in range(2)] == [pytest.approx([0.4])] * 2


def test_at_most_so_many_of_the_detectors_persons_are_taken(small):
    boxes, scores = [[0, 0, 20, 40], [40, 0, 60, 40], [80, 0, 100, 40]], [0.5, 0.9, 0.7]
    with PoseEstimator(small, device="cpu", detector=lambda frame: (boxes, scores), max_persons=2) as estimate:
        assert estimate(noise()).box_scores.tolist() == pytest.approx([0.9, 0.7])
        assert len(estimate(noise(), boxes)) == 3  # those given are the caller's to say


def test_who_is_followed_is_not_given_up_for_a_surer_newcomer(small):
    found = [([[0, 0, 40, 80]], [0.5]), ([[80, 0, 120, 80], [2, 0, 42, 80]], [0.9, 0.5])]
    with PoseEstimator(
        small, device="cpu", detector=lambda frame: found.pop(0), tracker=True, max_persons=1
    ) as estimate:
        assert [estimate(noise()).track_ids.tolist() for _ in range(2)] == [[1], [1]]


@pytest.mark.data
def test_a_walk_keeps_its_ids(small, shared):
    """Persons of a real clip, found anew in each frame: whoever overlaps the frame before keeps the number."""
    from sdk.people.tracking import box_iou

    capture = cv2.VideoCapture(str(shared / "data" / "samples" / "video" / "000001_mpiinew_test.mp4"))
    detector = shared / "models" / "rtmdet-nano-person.onnx"
    before, kept, told = None, 0, 0
    with PoseEstimator(small, device="cpu", detector=detector, tracker=True, threads=1) as estimate:
        while (read := capture.read())[0]:
            poses = estimate(read[1])
            assert len(poses.track_ids) == len(poses) == len(set(poses.track_ids.tolist()))
            if before is not None:
                overlap = box_iou(poses.boxes, before.boxes)
                for row, other in zip(*np.nonzero(overlap > 0.8), strict=True):
                    if (overlap[row] > 0.3).sum() == 1 and (overlap[:, other] > 0.3).sum() == 1:  # no rival
                        told, kept = told + 1, kept + int(poses.track_ids[row] == before.track_ids[other])
            before = poses
    assert told == kept >= 3


# --- heatmaps --------------------------------------------------------------------------------------------------------


def test_a_heatmap_engine_gives_poses(heatmap_engine):
    frame, boxes = noise(5), random_boxes(11, 5)
    with PoseEstimator(heatmap_engine, device="cpu", flip_test=True) as estimate:
        poses = estimate(frame, boxes)
    assert poses.keypoints.shape == (11, 14, 2) and np.isfinite(poses.keypoints).all()


def test_a_heatmap_engine_has_its_own_refinement(heatmap_engine):
    with pytest.raises(InputError, match="refine must be 'none' for a heatmap engine"):
        PoseEstimator(heatmap_engine, device="cpu", refine="dark")
