"""A Triton model repository: what its configurations say, how it is written, and its models run as Triton runs them.

No server here: `tests/triton.sh` asks a real one.
"""

import importlib.util
import re
import sys
import types

import numpy as np
import pytest

from sdk import PoseEstimator, ops
from sdk.cli import main
from sdk.errors import EngineError, InputError, OutputError
from sdk.geometry import crop_affines
from sdk.manifest import CompilerNote, open_engine
from sdk.runtime.opening import open_session
from sdk.serving.pbtxt import Word, pbtxt
from sdk.serving.triton import Options, models_of, write_repository

FRAME = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
BOXES = np.array([[10, 10, 60, 80], [30, 5, 110, 85]], np.float32)
ENDS = ("", "_network", "_decode", "_crops")


@pytest.fixture(scope="module")
def engines(small_graphs, tmp_path_factory):
    """Kind -> an engine; 'plan' and 'rtx' claim a plan that nothing here opens."""
    from tests.support.engines import given_plan, wrapped_engine

    folder = tmp_path_factory.mktemp("engines")
    made = {kind: wrapped_engine(*graph[:1], folder / kind, graph[1]) for kind, graph in small_graphs.items()}
    found = {kind: open_engine(each) for kind, each in made.items()}
    graph, recipe = small_graphs["simcc"]
    for kind, name in (("plan", "tensorrt"), ("rtx", "tensorrt-rtx")):
        note = CompilerNote(name, "10.16", "9.0", "9.0.plan")
        found[kind] = given_plan(wrapped_engine(graph, folder / kind, recipe), note, b"a plan")
    return found


# ---- configurations


def config_of(engine, end="", **options):
    models = {model.name: model.config for model in models_of(engine, Options(name="pose", **options))}
    return models[f"pose{end}"]


@pytest.mark.parametrize(("kind", "ends"), [("simcc", ENDS), ("three axes", ENDS), ("heatmap", ENDS[:2])])
def test_an_engine_has_its_models(engines, kind, ends):
    assert [model.name for model in models_of(engines[kind], Options(name="pose"))] == [f"pose{end}" for end in ends]


@pytest.mark.parametrize(("kind", "backend", "runs"), [
    ("simcc", "auto", {"backend": "onnxruntime"}),
    ("plan", "auto", {"platform": "tensorrt_plan"}),
    ("plan", "tensorrt", {"platform": "tensorrt_plan"}),
    ("plan", "onnxruntime", {"backend": "onnxruntime"}),
    ("rtx", "auto", {"backend": "onnxruntime"}),
])  # fmt: skip
def test_the_network_runs_on_its_plan_where_it_is_tensorrts(engines, kind, backend, runs):
    config = config_of(engines[kind], "_network", backend=backend)
    assert config | runs == config
    assert config["max_batch_size"] == 8 and {each["batch_size"] for each in config["model_warmup"]} == {1, 8}


def test_shapes_are_the_engines(engines):
    network, decode = (config_of(engines["three axes"], end) for end in ("_network", "_decode"))
    assert network["input"] == [{"name": "input", "data_type": "TYPE_FP32", "dims": [3, 64, 48]}]
    assert [(t["name"], t["dims"]) for t in network["output"]] == [
        ("simcc_x", [14, 96]), ("simcc_y", [14, 128]), ("simcc_z", [14, 72]),
    ]  # fmt: skip
    assert decode["input"][:-1] == network["output"] and decode["output"][0]["dims"] == [14, 4]
    heatmap = config_of(engines["heatmap"], "_network")["output"][0]
    assert (heatmap["name"], heatmap["dims"]) == ("heatmap", [14, -1, -1])


def test_a_fixed_batch_is_stated_not_guessed(small_graphs, tmp_path):
    import onnx

    from tests.support.engines import wrapped_engine

    model = onnx.load(small_graphs["simcc"][0])
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(model, tmp_path / "two.onnx")
    engine = open_engine(wrapped_engine(tmp_path / "two.onnx", tmp_path / "two", small_graphs["simcc"][1]))
    config = config_of(engine, "_network")
    assert config["max_batch_size"] == 0 and config["input"][0]["dims"] == [2, 3, 64, 48]
    assert "dynamic_batching" not in config and config["model_warmup"] == []


def test_options_reach_the_configuration(engines):
    config = config_of(engines["simcc"], kind="gpu", instances=3, delay_us=2000, frames=4)
    assert config["instance_group"] == [{"kind": "KIND_GPU", "count": 3}]
    assert config["dynamic_batching"] == {"max_queue_delay_microseconds": 2000} and config["max_batch_size"] == 4
    assert config_of(engines["simcc"], "_decode", kind="gpu")["instance_group"][0]["kind"] == "KIND_CPU"


def test_text_form():
    text = pbtxt({"name": 'a "b"\\', "kind": Word("KIND_CPU"), "dims": [-1, 4], "on": True, "inner": {"x": [{}, 1]}})
    assert text == (
        'name: "a \\"b\\"\\\\"\nkind: KIND_CPU\ndims: -1\ndims: 4\non: true\ninner {\n  x {\n  }\n  x: 1\n}\n'
    )


# ---- the repository


def test_a_repository_is_written_and_takes_further_versions(engines, tmp_path):
    repository = tmp_path / "repository"
    write_repository(repository, engines["simcc"], Options(name="pose"))
    assert sorted(path.name for path in repository.iterdir()) == sorted(f"pose{end}" for end in ENDS)
    whole = repository / "pose"
    assert open_engine(whole / "1" / "engine").manifest == engines["simcc"].manifest
    assert (whole / "joints.txt").read_text().split() == list(engines["simcc"].manifest.recipe.skeleton.joints)
    assert (repository / "pose_crops" / "1").is_dir() and not list((repository / "pose_crops" / "1").iterdir())
    before = {path: path.stat().st_mtime_ns for path in repository.rglob("*") if path.is_file()}
    write_repository(repository, engines["simcc"], Options(name="pose", version=2))
    assert all((repository / f"pose{end}" / "2").is_dir() for end in ENDS)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    write_repository(repository, engines["heatmap"], Options(name="other"))
    assert (repository / "other_network" / "1" / "model.onnx").is_file()


REFUSED = {
    "the same version": ({}, OutputError, "has version 1 of model 'pose'; choose another --name or --model-version"),
    "another configuration": ({"version": 2, "instances": 2}, OutputError, "'pose' of another configuration"),
    "name": ({"name": "../x"}, InputError, "name must be letters, digits, '_', '.' and '-'"),
    "version": ({"version": 0}, InputError, "version must be at least 1 (got 0)"),
    "no plan": ({"backend": "tensorrt", "name": "x"}, EngineError, "has no plan of TensorRT, .* (it has none)"),
}


@pytest.mark.parametrize(("options", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_written_is_refused_and_changes_nothing(engines, tmp_path, options, error, message):
    write_repository(tmp_path / "r", engines["simcc"], Options(name="pose"))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=re.escape(message).replace(r"\.\*", ".*")):
        write_repository(tmp_path / "r", engines["simcc"], Options(**{"name": "pose"} | options))
    assert sorted(tmp_path.rglob("*")) == before


def test_an_engine_folder_is_no_repository_and_rtx_plans_are_named(engines, tmp_path):
    with pytest.raises(OutputError, match="is an engine folder"):
        write_repository(engines["simcc"].folder, engines["simcc"], Options(name="pose"))
    with pytest.raises(EngineError, match="it has one of tensorrt-rtx"):
        models_of(engines["rtx"], Options(name="pose", backend="tensorrt"))


def test_the_verb(engines, tmp_path, capsys):
    command = ["export-triton", str(engines["simcc"].folder), "--output", str(tmp_path / "r"), "--json"]
    assert main(command) == 0
    assert '"models": ["small-64x48", "small-64x48_network"' in capsys.readouterr().out
    assert "KIND_CPU" in (tmp_path / "r" / "small-64x48" / "config.pbtxt").read_text()
    assert main(command) == 1
    assert "has version 1 of model 'small-64x48'" in capsys.readouterr().err


# ---- the models, on what they use of Triton


class Tensor:
    """`pb_utils.Tensor` as far as the models use it; `as_numpy` is left out, as it lies under numpy 2."""

    def __init__(self, name, values):
        self.name, self.values = name, values

    @classmethod
    def from_dlpack(cls, name, values):
        assert values.flags.c_contiguous and values.size
        return cls(name, values)

    def __dlpack__(self, **options):
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.values.__dlpack_device__()


class Response:
    def __init__(self, tensors=(), error=None):
        self.arrays, self.error = {tensor.name: tensor.values for tensor in tensors}, error


@pytest.fixture
def served(engines, tmp_path, monkeypatch):
    """A function that starts a model of a repository as Triton's stub does: (kind of engine, end of the name)."""
    utils = types.ModuleType("triton_python_backend_utils")
    utils.Tensor, utils.InferenceResponse, utils.TritonError = Tensor, Response, str
    utils.get_input_tensor_by_name = lambda request, name: request.get(name)
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utils)

    def start(kind, end=""):
        write_repository(tmp_path / kind, engines[kind], Options(name="pose"))
        folder = tmp_path / kind / f"pose{end}"
        spec = importlib.util.spec_from_file_location(f"model{end}", folder / "1" / "model.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        model = module.TritonPythonModel()
        told = {"model_repository": str(folder), "model_version": "1", "model_instance_device_id": "0"}
        model.initialize(told | {"model_instance_kind": "CPU"})
        return model

    return start


def request(frames, boxes=None):
    given = {"FRAME": Tensor("FRAME", frames)}
    return given if boxes is None else given | {"BOXES": Tensor("BOXES", boxes)}


@pytest.mark.native
@pytest.mark.parametrize("kind", ["simcc", "three axes", "heatmap"])
def test_requests_get_what_the_estimator_gives(served, engines, kind):
    model = served(kind)
    requests = [
        request(FRAME[None], BOXES[None]),
        request(FRAME[None, :60, :50].copy()),
        request(FRAME[None], np.zeros((1, 0, 4), np.float32)),
        request(np.stack([FRAME, FRAME[::-1]]), np.stack([BOXES, BOXES + 3])),
    ]
    answers = model.execute(requests)
    with PoseEstimator(engines[kind].folder, device="cpu") as estimate:
        want = [
            [estimate(FRAME, BOXES)],
            [estimate(FRAME[:60, :50])],
            [estimate(FRAME, BOXES[:0])],
            [estimate(FRAME, BOXES), estimate(FRAME[::-1], BOXES + 3)],
        ]
    for answer, poses in zip(answers, want, strict=True):
        assert answer.error is None
        np.testing.assert_array_equal(answer.arrays["KEYPOINTS"], np.stack([each.keypoints for each in poses]))
        np.testing.assert_array_equal(answer.arrays["SCORES"], np.stack([each.scores for each in poses]))
        if kind == "three axes":
            np.testing.assert_array_equal(answer.arrays["DEPTHS"], np.stack([each.depths for each in poses]))
    model.finalize()


@pytest.mark.native
def test_one_bad_request_is_told_and_the_others_are_served(served):
    model = served("simcc")
    good, bad = request(FRAME[None], BOXES[None]), request(FRAME[None], np.full((1, 1, 4), np.nan, np.float32))
    first, refused, last = model.execute([good, bad, good])
    assert "must be finite numbers" in refused.error and not refused.arrays
    np.testing.assert_array_equal(first.arrays["KEYPOINTS"], last.arrays["KEYPOINTS"])
    model.finalize()


@pytest.mark.native
@pytest.mark.parametrize("kind", ["simcc", "three axes"])
def test_distributions_are_decoded_as_the_engine_says(served, engines, kind):
    recipe = engines[kind].manifest.recipe
    affines = crop_affines(BOXES, recipe.input.size_hw, recipe.input.box_padding)
    crops = ops.crop(
        FRAME, affines, recipe.input.size_hw, mean=recipe.input.mean, std=recipe.input.std,
        channel_order=recipe.input.colour,
    )  # fmt: skip
    with open_session(engines[kind], "cpu") as session:
        axes = session.run(crops)
    given = {name: Tensor(name, axis) for name, axis in zip(recipe.output.names, axes, strict=True)}
    model = served(kind, "_decode")
    (answer,) = model.execute([given | {"AFFINES": Tensor("AFFINES", affines)}])
    with PoseEstimator(engines[kind].folder, device="cpu") as estimate:
        poses = estimate(FRAME, BOXES)
    np.testing.assert_array_equal(answer.arrays["JOINTS"][..., :2], poses.keypoints)
    np.testing.assert_array_equal(answer.arrays["JOINTS"][..., 2], poses.scores)
    (refused,) = model.execute([given | {"AFFINES": Tensor("AFFINES", affines[:1])}])
    assert "affines" in refused.error
