"""Detectors as recipes: the catalogue, what is refused in which words, and engines told apart by their manifests."""

import json
import re
from dataclasses import replace

import pytest

from sdk.cli import main
from sdk.detection import DetectionForm
from sdk.detector_recipe import detector_by_name, detector_catalogue, detector_from_file, detector_from_table
from sdk.errors import RecipeError
from sdk.manifest import DetectorManifest, Manifest, manifest_from_table
from sdk.recipe import catalogue, recipe_by_name, recipes_from_file
from sdk.resources import catalogue_folder

DETECTORS = detector_catalogue()
PROMISED = {
    "rtmdet-nano-person-320": (320, 320),
    "rtmdet-m-person-640": (640, 640),
    "yolox-nano-416": (416, 416),
    "yolox-tiny-416": (416, 416),
    "yolox-s-640": (640, 640),
    "yolox-m-640": (640, 640),
}
GOOD = (catalogue_folder("engines") / "yolox.toml").read_text()


@pytest.mark.parametrize("name", PROMISED)
def test_the_promised_detectors_are_there(name):
    recipe = DETECTORS[name]
    assert recipe.name == name and recipe.input.size_hw == PROMISED[name] and recipe.description and recipe.licence
    assert recipe.weights.url.startswith("https://")
    assert recipe.score_threshold == (0.25 if name.startswith("yolox") else 0.3)
    assert recipe.input.colour == "bgr" and recipe.input.place == "corner" and recipe.input.border == 114


def test_the_catalogue_holds_no_more_and_no_name_of_a_pose_network():
    assert list(DETECTORS) == sorted(PROMISED) and not set(DETECTORS) & set(catalogue())


def test_a_digest_stands_where_the_file_was_published_with_one_or_computed():
    told = {name: recipe.weights.sha256 for name, recipe in DETECTORS.items()}
    assert [name for name, digest in told.items() if digest is not None] == [
        "yolox-nano-416",
        "yolox-s-640",
        "yolox-tiny-416",
    ]
    assert all(len(digest) == 64 for digest in told.values() if digest is not None)


@pytest.mark.data
def test_the_digest_of_the_nano_detector_is_that_of_the_file_that_is_here(shared):
    from sdk.manifest import sha256_of_file

    assert sha256_of_file(shared / "models/yolox-nano-coco80.onnx") == DETECTORS["yolox-nano-416"].weights.sha256


@pytest.mark.parametrize("name", PROMISED)
def test_a_recipe_is_read_back_from_its_table(name):
    table = json.loads(json.dumps(DETECTORS[name].to_table()))
    assert table["kind"] == "detector" and detector_from_table(table, "here") == DETECTORS[name]


REFUSED = {  # what stands in the file, what is put there, what is said
    "unknown key": ('colour = "bgr"', 'colours = "bgr"', "key 'input': unknown key 'colours'"),
    "border": ("border = 114", "border = 300", "key 'border' must be from 0 to 255 (got 300)"),
    "place": ('place = "corner"', 'place = "left"', "key 'place' must be one of corner, centre, stretch"),
    "score threshold": ("score_threshold = 0.25", "score_threshold = 2", "'score_threshold' must be from 0 to 1"),
    "form against itself": ("strides = [8, 16, 32]", "", "key 'form': strides must be given for box_form 'grid'"),
    "an output that is not there": ("boxes = { column = 0 }", "boxes = { output = 1 }", "form must read outputs of"),
    "no whole cells": (
        "height = 416, width = 416 }\nweights.url = \"https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0/yolox_nano",
        "height = 400, width = 416 }\nweights.url = \"https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0/yolox_nano",
        "recipe 'yolox-nano-416': name must end in '-400x416'",
    ),
    "a name of another size": ('"yolox-s-640"', '"yolox-s-416"', "name must end in '-640x640' or '-640'"),
    "http": ("https://github.com", "http://github.com", "weights.url must be https"),
    "one name twice": ('name = "images"', 'name = "output"', "must have names that differ (got 'output', 'output')"),
    "kind": ('kind = "detector"', 'kind = "face"', "key 'kind' must be one of pose, detector (got 'face')"),
}  # fmt: skip


@pytest.mark.parametrize(("before", "after", "message"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_recipe_is_refused_by_file_and_key(before, after, message, tmp_path):
    assert before in GOOD
    path = tmp_path / "mine.toml"
    path.write_text(GOOD.replace(before, after))
    with pytest.raises(RecipeError, match=re.escape(message)):
        for name in re.findall(r'^\[recipes\."(.*)"\]$', path.read_text(), re.M):
            detector_from_file(path, name)


def test_cells_that_do_not_fill_the_input_are_refused():
    recipe = DETECTORS["yolox-nano-416"]
    with pytest.raises(RecipeError, match="height and width must be multiples of the coarsest stride, 32"):
        replace(recipe, name="mine-400", input=replace(recipe.input, height=400, width=400))


def test_files_of_the_other_kind_are_told():
    folder = catalogue_folder("engines")
    with pytest.raises(RecipeError, match="holds recipes of kind 'detector', and one of kind 'pose' is asked for"):
        recipes_from_file(folder / "yolox.toml")
    with pytest.raises(RecipeError, match="holds recipes of kind 'pose', and one of kind 'detector' is asked for"):
        detector_from_file(folder / "rtmpose.toml", "rtmpose-s-256x192")


NAMES = {
    "a detector for a pose network": (recipe_by_name, "yolox-s-640", "'yolox-s-640' is a detector, and"),
    "a pose network for a detector": (detector_by_name, "rtmpose-s-256x192", "is a pose network, and a detector is"),
    "nearly a detector's": (detector_by_name, "yolox-s-64", "not in the catalogue; did you mean yolox-s-640"),
}


@pytest.mark.parametrize(("ask", "name", "message"), NAMES.values(), ids=NAMES)
def test_names_of_the_other_kind_are_told(ask, name, message):
    with pytest.raises(RecipeError, match=message):
        ask(name)


def manifest_table(recipe):
    return {
        "format": 1, "recipe": recipe.to_table(), "precision": "fp32", "opset": 19, "key": "k", "created_by": "test",
        "batch": {"min": 1, "opt": 1, "max": 1}, "weights": {"kind": "onnx", "source": "a.onnx"}, "files": {},
    }  # fmt: skip


def test_a_manifest_says_of_itself_which_kind_it_is():
    pose, detector = recipe_by_name("body14-nano-128x128"), DETECTORS["rtmdet-nano-person-320"]
    assert type(manifest_from_table(manifest_table(pose), "here")) is Manifest
    read = manifest_from_table(json.loads(json.dumps(manifest_table(detector))), "here")
    assert type(read) is DetectorManifest and read.recipe == detector and type(read.recipe.form) is DetectionForm


def test_a_verb_for_pose_networks_says_so(capsys):
    assert main(["export", "yolox-s-640", "--output", "x.onnx"]) == 1
    assert "'yolox-s-640' is a detector, and the recipe of a pose network is asked for" in capsys.readouterr().err
