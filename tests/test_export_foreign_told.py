"""What a graph made elsewhere does not say: told, by a named convention, or by the files beside it."""

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxslim")

from sdk.errors import GraphError, UsageError
from sdk.skeletons import skeleton_by_name
from sdk.toolchain.conventions import CONVENTIONS
from tests.support import foreign_forms as forms
from tests.support.engines import SMALL
from tests.support.foreign_forms import changed, rename
from tests.support.foreign_graphs import assert_standard, taken, zipped

SKELETON = SMALL.skeleton


def test_a_graph_without_a_recipe_asks_for_what_it_does_not_say(graph_file):
    with pytest.raises(
        GraphError, match=r"does not say --mean, --std, --colour, --padding, --score .*--convention mmp"
    ):
        taken(graph_file, None)
    with pytest.raises(GraphError, match=r"has 14 joints and does not name them: give --skeleton NAME .*crowdpose14"):
        taken(graph_file, None, convention="mmpose")
    with pytest.raises(GraphError, match="has 14 joints, skeleton 'coco17' 17"):
        taken(graph_file, None, convention="mmpose", skeleton=skeleton_by_name("coco17"))


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_convention_makes_the_recipe_with_the_graph(graph_file, name):
    found, convention = taken(graph_file, None, convention=name, skeleton=SKELETON), CONVENTIONS[name]
    recipe = found.recipe
    assert (recipe.name, recipe.skeleton, recipe.bins_xy) == ("small-64x48", SKELETON, SMALL.bins_xy)
    assert (recipe.input.mean, recipe.input.colour, recipe.input.box_padding) == (
        convention.mean, convention.colour, convention.padding
    )  # fmt: skip
    assert recipe.output.score == convention.score
    assert f"score {convention.score} (convention {name})" in found.notes[0]
    assert "14 joints, split ratio 2 (the graph)" in found.notes[0]


def test_what_is_told_goes_before_a_convention_and_a_recipe(graph_file):
    told = {"padding": 1.1, "colour": "bgr", "score": "mean_logit", "mean": (1.0, 2.0, 3.0)}
    for found in (
        taken(graph_file, None, convention="mmpose", skeleton=SKELETON, **told),
        taken(graph_file, SMALL, **told),
    ):
        recipe = found.recipe
        assert (recipe.input.box_padding, recipe.input.colour, recipe.input.mean) == (1.1, "bgr", (1.0, 2.0, 3.0))
        assert recipe.output.score == "mean_logit"
        assert "told" in found.notes[0]
    with pytest.raises(UsageError, match="leave RECIPE or those options out"):
        taken(graph_file, SMALL, convention="mmpose")


def test_a_graph_that_leaves_its_size_open_asks_for_it(graph_file):
    def open_up(model):
        for dim in model.graph.input[0].type.tensor_type.shape.dim:
            dim.Clear()

    changed(graph_file, open_up)
    with pytest.raises(GraphError, match="give --size HxW or a RECIPE"):
        taken(graph_file, None, convention="mmpose", skeleton=SKELETON)
    found = taken(graph_file, None, convention="mmpose", skeleton=SKELETON, size_hw=(64, 48))
    assert found.recipe.name == "small-64x48"


def test_a_deploy_zip_is_read_in_place(graph_file):
    before = sorted(graph_file.parent.iterdir())
    archive = zipped(graph_file, "20230831/rtmpose_onnx/end2end.onnx")
    assert_standard(taken(archive).model)
    assert sorted(graph_file.parent.iterdir()) == sorted([*before, archive])


DEPLOYED = {"a folder": forms.deploy_folder, "a zip": forms.deploy_zip}


@pytest.mark.parametrize("deploy", DEPLOYED.values(), ids=DEPLOYED)
def test_deploy_files_say_what_the_graph_does_not(graph_file, tmp_path, deploy):
    said = {
        "padding": 1.4, "mean": [10, 20, 30], "std": [40, 50, 60], "to_rgb": False,
        "output_map": {"output": "simcc_x", "700": "simcc_y"},
        "more": {"flip_pairs": [[1, 0], *SKELETON.flip_pairs[1:]]},
    }  # fmt: skip
    changed(graph_file, lambda model: rename(model, {"simcc_x": "output", "simcc_y": "700"}))
    place = deploy(tmp_path / "rtmpose.zip", graph_file, SMALL, **said)
    found = taken(place, None, skeleton=SKELETON)
    source = found.recipe.input
    assert (source.box_padding, source.mean, source.std, source.colour) == (1.4, (10, 20, 30), (40, 50, 60), "bgr")
    assert (found.recipe.output.score, found.recipe.name) == ("min_logit", "end2end-64x48")
    assert found.recipe.source == "mmpose 1.3.1 rtmpose-t.py"
    assert "padding 1.4, split ratio 2.0, flip pairs (0, 1) (2, 3)" in found.notes[0]
    assert "outputs named by pipeline.json" in found.notes


def test_files_beside_an_onnx_file_are_read_when_they_are_its_own(graph_file, tmp_path):
    folder = forms.deploy_folder(tmp_path / "deployed", graph_file, SMALL, padding=1.4)
    assert taken(folder / "end2end.onnx", None, skeleton=SKELETON).recipe.input.box_padding == 1.4
    (folder / "end2end.onnx").rename(folder / "other.onnx")
    assert taken(folder / "other.onnx").recipe == SMALL  # detail.json is of another file


DEPLOY_REFUSED = {
    "padding": ({"padding": 1.0}, r"pipeline.json beside it says padding 1, recipe 'small-64x48' 1.25; take another"),
    "mean": ({"mean": [1, 2, 3]}, "says mean 1 2 3, recipe"),
    "colour": ({"to_rgb": False}, "says colour bgr, recipe 'small-64x48' rgb"),
    "split ratio": ({"simcc_split_ratio": 3.0}, "says split ratio 3, recipe 'small-64x48' 2"),
    "flip pairs": ({"more": {"flip_indices": [1, 0, 2]}}, "says flip pairs 0 1, recipe"),
    "a UDP crop": ({"use_udp": True}, "'use_udp' is set, and the SDK crops without it"),
    "not numbers": ({"mean": "imagenet"}, r"pipeline.json: 'mean' must be 3 numbers \(got 'imagenet'\)"),
    "not a number": ({"padding": "1.25"}, r"'padding' must be a number \(got '1.25'\)"),
}


@pytest.mark.parametrize(("said", "message"), DEPLOY_REFUSED.values(), ids=DEPLOY_REFUSED)
def test_deploy_files_that_contradict_the_recipe_are_refused(graph_file, tmp_path, said, message):
    with pytest.raises(GraphError, match=message):
        taken(forms.deploy_folder(tmp_path / "d", graph_file, SMALL, **said))


def test_damaged_deploy_files_are_told(graph_file, tmp_path):
    folder = forms.deploy_folder(tmp_path / "d", graph_file, SMALL)
    (folder / "pipeline.json").write_text("{")
    with pytest.raises(GraphError, match=r"pipeline\.json"):
        taken(folder)
