"""`sdk inspect FILE.onnx`, and engines of graphs made elsewhere: what is said, and that their poses are the graph's."""

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxslim")

from onnx import TensorProto

from sdk import PoseEstimator
from sdk.cli import main
from sdk.manifest import BatchRange
from sdk.media.figures import rendered_clip
from sdk.resources import bundled_engines
from sdk.skeletons import skeleton_by_name
from sdk.toolchain.build import BuildOptions, build_engine, rebuild_engine
from sdk.toolchain.compile import CompileOptions
from sdk.toolchain.conventions import Told
from sdk.toolchain.seen import look_in_child
from tests.support import foreign_forms as forms
from tests.support.engines import (
    SMALL,
    SMALL_3D,
    SMALL_HEATMAP,
    pooled_heatmap_graph,
    pooled_simcc_graph,
    wrapped_engine,
)
from tests.support.foreign_forms import before, behind, changed, in_turn

NONE = CompileOptions(compiler="none")
BUNDLED = "body14-nano-128x128.fp32"
BOXES = np.array([[150, 30, 370, 340], [100, 20, 300, 300], [10, 50, 200, 350]], np.float32)


def seen(path, size_hw=None):
    return look_in_child({"path": str(path), "size_hw": size_hw})[0]


def test_a_plain_graph_is_seen_for_what_it_is(graph_file):
    facts = seen(graph_file)
    assert (facts["joints"], facts["split_ratio"], facts["batch"], facts["opset"]) == (14, 2.0, "any", 17)
    assert facts["axes"] == {"simcc_x": "simcc_x", "simcc_y": "simcc_y"}
    assert (facts["input"]["layout"], facts["input"]["size_hw"]) == ("N x 3 x h x w", [64, 48])
    assert (facts["asks"], facts["skeletons"]) == (["skeleton", "convention"], ["crowdpose14"])
    assert (facts["probabilities"], facts["recipe"], facts["beside"]) == (False, None, None)


SEEN = {
    "uint8, normalised inside": (
        before(forms.CAST, forms.SUB, forms.DIV, dtype=TensorProto.UINT8),
        lambda facts: facts["input"]["normalisation_inside"]["mean"] == pytest.approx(SMALL.input.mean),
    ),
    "plain pixels": (before(forms.SUB, forms.DIV), lambda facts: "pixels" in facts["asks"]),
    "colours turned": (before(forms.GATHER_TURN), lambda facts: facts["input"]["turns_channels"]),
    "FP16": (forms.half, lambda facts: facts["precision"] == "float16"),
    "a softmax": (behind(forms.softmax), lambda facts: facts["probabilities"]),
    "joints first": (behind(forms.transposed(1, 0, 2)), lambda facts: facts["axes"]["simcc_x"] == "simcc_x_out"),
    "decoded only": (
        behind(forms.argmax, rank=2, dtype=TensorProto.INT64), lambda facts: facts["axes"]["simcc_y"] == "simcc_y"
    ),
    "a batch baked in": (
        in_turn(forms.batch_of(1), behind(forms.squeezed, rank=2)), lambda facts: "is freed" in facts["batch_note"]
    ),
    "crops that see each other": (forms.mixes_the_batch, lambda facts: facts["batch"] == 1),
}  # fmt: skip


@pytest.mark.parametrize(("change", "says"), SEEN.values(), ids=SEEN)
def test_what_is_out_of_the_way_is_seen(graph_file, change, says):
    assert says(seen(changed(graph_file, change)))


def test_a_graph_that_is_no_simcc_pair_asks_for_a_recipe(tmp_path):
    facts = seen(pooled_heatmap_graph(tmp_path / "h.onnx", SMALL_HEATMAP))
    assert (facts["joints"], facts["asks"]) == (None, ["recipe"])
    assert facts["outputs"] == {"heatmap": [1, 14, 16, 12]}


def test_the_page_ends_in_the_command_that_builds(graph_file, tmp_path, capsys):
    folder = forms.deploy_folder(tmp_path / "deployed", graph_file, SMALL)
    assert main(["inspect", str(folder)]) == 0
    page = capsys.readouterr().out
    assert "SimCC, 14 joints, split ratio 2, crops of 64x48" in page
    assert "beside    size 64x48, mean 123.675 116.28 103.53" in page
    assert "no graph says: the joints' names\n" in page
    command = page.splitlines()[-1].split()
    assert command[-2:] == ["--skeleton", "crowdpose14"]
    assert command[:4] == ["sdk", "build-engine", "--onnx", str(folder)]


def test_the_page_says_which_outputs_are_dropped(tmp_path, capsys):
    depth = replace(SMALL_3D.output.depth, bins=SMALL_3D.bins[0])  # as many as along x, as RTMW3D has
    pooled_simcc_graph(tmp_path / "deep.onnx", replace(SMALL_3D, output=replace(SMALL_3D.output, depth=depth)))
    assert main(["inspect", str(tmp_path / "deep.onnx")]) == 0
    assert "dropped   simcc_z\n" in capsys.readouterr().out


def test_inspect_refuses_what_is_no_graph_in_words(tmp_path, capsys):
    (tmp_path / "bad.onnx").write_bytes(b"\x80junk" * 50)
    assert main(["inspect", str(tmp_path / "bad.onnx")]) == 1
    assert "is not an ONNX file, or is truncated" in capsys.readouterr().err
    assert main(["inspect", BUNDLED, "--size", "64x48"]) == 2


def poses_of(folder, frame, boxes=None):
    with PoseEstimator(folder, device="cpu") as estimate:
        return estimate(frame, boxes)


@pytest.mark.native
def test_a_softmax_inside_changes_no_pose_score_scale_or_drawing(tmp_path):
    """What a user sees of an engine: of the bundled network, as it is and with the softmax that exporters put in."""
    engine = bundled_engines()[BUNDLED]
    recipe = json.loads((engine / "engine.json").read_text())["recipe"]["name"]
    graph = tmp_path / "softmax.onnx"
    graph.write_bytes((engine / "network.onnx").read_bytes())
    changed(graph, behind(forms.softmax))
    from sdk.recipe import recipe_by_name

    built = build_engine(
        BuildOptions(recipe_by_name(recipe), onnx=graph, compile=NONE, output=tmp_path / "softmax.fp32")
    )
    assert "softmax inside the graph taken out" in built.manifest.notes
    frame = next(iter(rendered_clip(seed=0, frames=1)))[0]
    plain, ours = poses_of(engine, frame, BOXES), poses_of(built.folder, frame, BOXES)
    np.testing.assert_array_equal(plain.keypoints, ours.keypoints)
    np.testing.assert_allclose(plain.scores, ours.scores, rtol=1e-5)
    assert plain.score_scale == ours.score_scale


@pytest.mark.native
def test_an_engine_of_one_crop_at_a_time_gives_every_person(graph_file, tmp_path):
    expected = wrapped_engine(graph_file, tmp_path / "free", SMALL)
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (240, 320, 3)).astype(np.uint8)
    alone = [poses_of(expected, frame, box[None]).keypoints[0] for box in BOXES / 2]
    changed(graph_file, forms.mixes_the_batch)
    engine = build_engine(BuildOptions(SMALL, "fp16", onnx=graph_file, compile=NONE, output=tmp_path / "one"))
    assert engine.manifest.batch == BatchRange(1, 1, 1)
    assert any(note.startswith("one crop after another") for note in engine.manifest.notes)
    poses = poses_of(engine.folder, frame, BOXES / 2)
    assert len(poses.keypoints) == len(BOXES)
    for ours, theirs in zip(poses.keypoints, alone, strict=True):  # doubled logits, in FP16: bins may tie
        assert np.mean(np.abs(ours - theirs) < 1e-3) > 0.9
    again = rebuild_engine(engine.folder, replace(NONE, batch=BatchRange(1, 4, 16)), tmp_path / "again")
    assert again.manifest.batch == BatchRange(1, 1, 1)


@pytest.mark.data
@pytest.mark.native
def test_the_convention_of_rtmlib_gives_rtmlibs_poses(shared, tmp_path):
    rtmlib = pytest.importorskip("rtmlib")
    graph = shared / "models" / "body14-lspet-128x128.onnx"
    told = Told("rtmlib", skeleton_by_name("crowdpose14"))
    engine = build_engine(BuildOptions(None, onnx=graph, told=told, compile=NONE, output=tmp_path / "e"))
    network = rtmlib.RTMPose(str(graph), model_input_size=(128, 128), backend="onnxruntime", device="cpu")
    equal = []
    for frame, _ in rendered_clip(seed=0, frames=8):
        keypoints, scores = network(frame, BOXES)
        poses = poses_of(engine.folder, frame, BOXES)
        equal.append(np.linalg.norm(poses.keypoints - keypoints, axis=-1) < 1e-3)
        np.testing.assert_allclose(poses.scores, scores, rtol=0.02)
    assert np.mean(equal) > 0.95  # 97.3 %: crops differ by a grey level, and some joints lie between two bins or peaks
