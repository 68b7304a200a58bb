"""Rendered figures, and `sdk demo` from end to end on the bundled network."""

import json
from dataclasses import replace

import numpy as np
import pytest

from sdk.cli import main
from sdk.media.figures import FIGURE_SKELETON, drawn_pose, joints_from_pose, rendered_clip, rendered_figure
from sdk.media.mannequin import Wardrobe, draw_figure
from sdk.recipe import recipe_by_name
from sdk.skeletons import skeleton_by_name
from tests.support.live import poses_of

cv2 = pytest.importorskip("cv2")

JOINTS = skeleton_by_name(FIGURE_SKELETON).joints


def joint(joints, name):
    return joints[JOINTS.index(name)]


def test_the_seed_decides_the_picture():
    first, again, other = (rendered_figure(np.random.default_rng(seed), (120, 160)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).any()
    assert first[0].shape == (120, 160, 3) and first[0].dtype == np.uint8
    assert first[1].shape == (14, 2) and first[1].dtype == np.float32


@pytest.mark.parametrize("seed", range(12))
def test_joints_lie_on_the_figure(seed):
    rng = np.random.default_rng(seed)
    pose, height_px = drawn_pose(rng), 180.0
    joints = joints_from_pose(pose, (150.0, 150.0), height_px)
    frame = np.zeros((300, 300, 3), np.uint8)
    draw_figure(frame, joints, height_px, Wardrobe.drawn(rng), pose.facing)
    drawn = cv2.dilate((frame.max(axis=2) > 0).astype(np.uint8), np.ones((5, 5), np.uint8))
    for name, (x, y) in zip(JOINTS, np.round(joints).astype(int), strict=True):
        assert drawn[y, x], name


@pytest.mark.parametrize("seed", range(12))
def test_limbs_keep_their_lengths(seed):
    joints = joints_from_pose(drawn_pose(np.random.default_rng(seed)), (0.0, 0.0), 100.0)
    for a, b, length in (("elbow", "wrist", 16.0), ("hip", "knee", 23.5), ("knee", "ankle", 23.5)):
        for side in ("left", "right"):
            span = np.linalg.norm(joint(joints, f"{side}_{a}") - joint(joints, f"{side}_{b}"))
            assert span == pytest.approx(length, rel=1e-4)


def test_the_left_of_a_figure_that_faces_us_is_on_our_right():
    for _, joints in rendered_clip(seed=0, frames=5):
        assert joint(joints, "left_shoulder")[0] > joint(joints, "right_shoulder")[0]
        assert joint(joints, "left_hip")[0] > joint(joints, "right_hip")[0]
        assert joint(joints, "top_head")[1] < joint(joints, "neck")[1] < joint(joints, "left_hip")[1]


def test_a_clip_stays_in_the_frame_and_moves():
    clip = list(rendered_clip(seed=1, frames=40, size_hw=(200, 220)))
    joints = np.stack([joints for _, joints in clip])
    assert len(clip) == 40
    assert (joints >= 0).all() and (joints[..., 0] < 220).all() and (joints[..., 1] < 200).all()
    assert np.abs(np.diff(joints, axis=0)).max() < 0.08 * 200


def test_who_walks_stands_on_the_ground():
    ankles = np.stack([joints[10:12, 1] for _, joints in rendered_clip(seed=2, frames=30, size_hw=(200, 220))])
    np.testing.assert_allclose(ankles.max(axis=1), 0.90 * 200, atol=1e-3)
    assert np.ptp(ankles.min(axis=1)) > 5  # the other foot is lifted in between


@pytest.mark.parametrize("facing", [1, -1])
def test_a_figure_is_drawn_where_it_is_and_nowhere_else(facing):
    rng = np.random.default_rng(3)
    frame = rng.integers(0, 256, (160, 150, 3)).astype(np.uint8)
    joints = joints_from_pose(drawn_pose(rng), (75.0, 80.0), 100.0)
    drawn = frame.copy()
    draw_figure(drawn, joints, 100.0, Wardrobe.matched(rng), facing)
    changed = np.argwhere((drawn != frame).any(axis=2))[:, ::-1]
    low, high = joints.min(axis=0) - 10, joints.max(axis=0) + 10
    assert len(changed) > 800 and (changed >= low).all() and (changed <= high).all()


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """One demo: its folder and its JSON."""
    import contextlib
    import io

    folder = tmp_path_factory.mktemp("demo") / "out"
    said = io.StringIO()
    command = ["demo", "--frames", "24", "--output", str(folder), "--compiler", "none", "--device", "cpu", "--json"]
    with contextlib.redirect_stdout(said):
        assert main(command) == 0
    return folder, json.loads(said.getvalue())


def test_the_demo_finds_the_figure(demo):
    _, result = demo
    assert result["frames"] == 24
    assert result["accuracy"]["pck_0.2"] >= 60
    assert {"crop", "total"} <= set(result["latency_ms"]) and min(result["latency_ms"].values()) > 0


@pytest.mark.parametrize("skeleton", ["crowdpose14", "coco17", "halpe26"])
def test_a_network_is_measured_on_the_joints_that_the_figure_has_too(skeleton):
    """Other joints may lie anywhere; those of the figure are found by name, here 3 pixels off."""
    from sdk.cli.demo import _accuracy, _Seen

    names, seen = skeleton_by_name(skeleton).joints, _Seen()
    for _, truth in rendered_clip(0, 3):
        seen.truth.append(truth)
        found = np.full((1, len(names), 2), 1e4, np.float32)
        for row, name in enumerate(names):
            if name in JOINTS:
                found[0, row] = joint(truth, name) + np.float32([0, 3])
        seen.poses.append(poses_of(found, skeleton_by_name(skeleton)))
    recipe = replace(recipe_by_name("rtmpose-t-256x192"), skeleton=skeleton_by_name(skeleton))
    assert _accuracy(seen, recipe) == {"pck_0.2": 100, "pck_0.1": 100, "median_error_px": 3}


def test_the_demo_leaves_engine_picture_and_clip(demo):
    from pathlib import Path

    from sdk.manifest import open_engine

    folder, result = demo
    assert open_engine(Path(result["engine"])).manifest.recipe.name == "body17-nano-128x128"
    picture = cv2.imread(result["picture"])
    plain = next(rendered_clip(3, 24, picture.shape[:2]))[0]
    assert picture.shape == plain.shape
    capture = cv2.VideoCapture(result["clip"])
    assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == 24
    capture.release()
    assert not [path.name for path in folder.iterdir() if "part" in path.name]


def test_the_demo_takes_a_file(demo, tmp_path, capsys):
    _, result = demo
    command = ["demo", "--source", result["clip"], "--frames", "3", "--output", str(tmp_path), "--compiler", "none"]
    assert main([*command, "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "accuracy" not in said
    assert "device    cpu (asked for)" in said
    assert f"clip      {tmp_path / 'clip.mp4'}" in said


def test_the_demo_does_not_replace_its_source(demo, capsys):
    folder, result = demo
    before = (folder / "clip.mp4").read_bytes()
    assert main(["demo", "--source", result["clip"], "--output", str(folder), "--compiler", "none"]) == 2
    assert "--output would overwrite the input" in capsys.readouterr().err
    assert (folder / "clip.mp4").read_bytes() == before


@pytest.mark.tensorrt
def test_the_demo_compiles_a_plan(tmp_path, capsys):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX alone compiles without a device")
    command = ["demo", "--frames", "2", "--output", str(tmp_path), "--compiler", "tensorrt-rtx", "--device", "cpu"]
    assert main([*command, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["compiler"].startswith("tensorrt-rtx ")
    assert list((tmp_path / "body17-nano-128x128.fp32").glob("*.plan"))


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--frames", "0"], 2, "--frames must be at least 1 (got 0)"),
        (["--seed", "-1"], 2, "--seed must be 0 or more (got -1)"),
        (["--source", "no.mp4"], 1, "source 'no.mp4' does not exist"),
        (["--backend", "opencv"], 2, "--backend says how a source is opened, and there is none; name one, or leave it"),
        (["--port", "8000"], 2, "--port is of the live page; give --live too, or leave it out"),
        (["--source", "0", "--no-browser"], 2, "--no-browser is of the live page"),
        (["--live", "--reconnect", "always"], 2, "--reconnect says how a source is opened, and there is none"),
        (["--source", "-"], 2, "--raw is the form of frames on standard input, the source '-'; give --raw"),
        (["--source", "a ! b", "--camera-format", "MJPG"], 2, "--camera-format is of V4L2 cameras, and no source is"),
        (["--source", "rtsp://127.0.0.1:9/1", "--backend", "opencv", "--reconnect", "no"], 1, "gives no frame"),
        (["--source", "7"], 1, "camera 7 gives no frame (it cannot be opened); check that it is connected and free"),
    ],
)
def test_misuse_is_told(tmp_path, capsys, options, status, message):
    assert main(["demo", "--output", str(tmp_path), "--compiler", "none", "--device", "cpu", *options]) == status
    assert message in capsys.readouterr().err
