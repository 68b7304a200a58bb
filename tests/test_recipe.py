"""Recipes: what a file must hold, how tables are laid over each other, and the words of every refusal."""

from dataclasses import replace

import pytest

from sdk.errors import RecipeError
from sdk.recipe import (
    Recipe,
    Weights,
    catalogue,
    recipe_by_name,
    recipe_from_file,
    recipe_from_table,
    recipes_from_file,
)
from sdk.recipe_networks import CSPNeXt, GauHead

GOOD = """
format = 1

[base]
description = "for a test"
source = "tests"
licence = "Apache-2.0"
skeleton = "coco17"
layout = "mmpose"

[base.network.backbone]
kind = "cspnext"
deepen = 0.33
widen = 0.5

[base.network.head]
kind = "gau"
kernel = 7
hidden = 256
attention = 128
expansion = 2

[base.input]
mean = [123.675, 116.28, 103.53]
std = [58.395, 57.12, 57.375]
colour = "rgb"
box_padding = 1.25

[base.output]
kind = "simcc"
split_ratio = 2.0
score = "min_logit"

[base.protocol]
flip_test = true
flip_shift = false

[recipes."net-256x192"]
input = { height = 256, width = 192 }

[recipes."net-64x64"]
input = { height = 64, width = 64 }
output = { split_ratio = 3 }
network.backbone = { deepen = 1, widen = 1.0 }
network.head = { kind = "simcc", deconv = [256, 256], maps_per_joint = 1 }
weights.url = "https://download.test/net-0123abcd.pth"
weights.sha256 = "0123abcd"
"""


CATALOGUE = catalogue()


def written(tmp_path, text):
    path = tmp_path / "net.toml"
    path.write_text(text, encoding="utf-8")
    return path


def read(tmp_path, text=GOOD):
    return recipes_from_file(written(tmp_path, text))


def test_one_file_holds_a_networks_sizes(tmp_path):
    recipes = read(tmp_path)
    assert list(recipes) == ["net-256x192", "net-64x64"]
    large, small = recipes.values()
    assert (large.input.size_hw, large.bins_xy, large.joints) == ((256, 192), (384, 512), 17)
    assert (small.input.size_hw, small.bins_xy) == ((64, 64), (192, 192))
    assert large.network.backbone == CSPNeXt("cspnext", 0.33, 0.5)
    assert small.network.backbone == CSPNeXt("cspnext", 1.0, 1.0)
    assert isinstance(large.network.head, GauHead)
    assert small.network.head.kind == "simcc"  # another kind replaces the table, it is not laid over it
    assert (large.weights, small.weights) == (None, Weights("https://download.test/net-0123abcd.pth", "0123abcd"))
    assert small.input.mean == large.input.mean == (123.675, 116.28, 103.53)


def test_a_recipe_survives_its_table(tmp_path):
    for recipe in read(tmp_path).values():
        assert recipe_from_table(recipe.to_table(), "a table") == recipe


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_recipe_survives_its_table(name):
    recipe = CATALOGUE[name]
    assert recipe_from_table(recipe.to_table(), "a table") == recipe


@pytest.mark.parametrize(
    ("size_hw", "ratio", "bins_xy"),
    [
        ((384, 288), 1.5, (432, 576)),
        ((64, 64), 3.0, (192, 192)),
        ((65, 33), 2.5, (82, 162)),
        ((128, 96), 1.0, (96, 128)),
    ],
)
def test_bins_are_whole_parts(tmp_path, size_hw, ratio, bins_xy):
    recipe = read(tmp_path)["net-256x192"]
    height, width = size_hw
    changed = replace(
        recipe,
        name=f"net-{height}x{width}",
        input=replace(recipe.input, height=height, width=width),
        output=replace(recipe.output, split_ratio=ratio),
    )
    assert changed.bins_xy == bins_xy


def test_the_output_tensors_are_named_in_order(tmp_path):
    simcc = read(tmp_path)["net-256x192"].output
    assert replace(simcc, x_name="along_x").names == ("along_x", "simcc_y")
    assert replace(simcc, kind="heatmap", split_ratio=None, score=None, heatmap_name="maps").names == ("maps",)


def test_heatmaps_have_no_bins(tmp_path):
    recipe = read(tmp_path)["net-256x192"]
    heatmap = replace(recipe, output=replace(recipe.output, kind="heatmap", split_ratio=None, score=None))
    with pytest.raises(RecipeError, match="has heatmaps, not bins"):
        _ = heatmap.bins_xy


# (what is replaced, by what, the words of the refusal)
REFUSED = {
    "no format": ("format = 1", "", "net.toml: key 'format' must be 1 (got None)"),
    "newer format": ("format = 1", "format = 2", "net.toml: key 'format' must be 1 (got 2)"),
    "unknown top key": ("[base]", "[bass]", "net.toml: unknown key 'bass'; known keys are format, base, recipes"),
    "not TOML": ("[base]", "[base", "is not TOML"),
    "unknown key": (
        'colour = "rgb"',
        'colour = "rgb"\nsize = 3',
        "recipe 'net-256x192': key 'input': unknown key 'size'; known",
    ),
    "missing key": ('colour = "rgb"', "", "recipe 'net-256x192': key 'input': key 'colour' is missing"),
    "missing table": ("[base.protocol]\nflip_test = true\nflip_shift = false", "", "key 'protocol' is missing"),
    "wrong choice": ('colour = "rgb"', 'colour = "grb"', "key 'colour' must be one of rgb, bgr (got 'grb', a text)"),
    "number for text": ('colour = "rgb"', "colour = 3", "key 'colour' must be one of rgb, bgr (got 3, a whole number)"),
    "text for number": ("height = 256", 'height = "256"', "key 'height' must be a whole number (got '256', a text)"),
    "float for whole": ("height = 256", "height = 256.0", "key 'height' must be a whole number (got 256.0, a number)"),
    "true for whole": (
        "height = 256",
        "height = true",
        "key 'height' must be a whole number (got True, true or false)",
    ),
    "two means": ("mean = [123.675, 116.28, 103.53]", "mean = [1, 2]", "key 'mean' must hold 3 values (got 2)"),
    "mean no list": (
        "mean = [123.675, 116.28, 103.53]",
        "mean = 1",
        "key 'mean' must be a list (got 1, a whole number)",
    ),
    "unknown network": (
        'kind = "cspnext"',
        'kind = "cspnet"',
        "'kind' must be one of resnet, hrnet, mobilenetv2, cspnext",
    ),
    "kind left out": ('kind = "gau"', "", "key 'head': 'kind' must be one of heatmap, simcc, gau"),
    "another kind's key": (
        "widen = 0.5",
        "width = 32",
        "key 'backbone' (cspnext): unknown key 'width'; known keys are",
    ),
    "unknown skeleton": (
        '"coco17"',
        '"coco18"',
        "skeleton must be one of animalpose20, ap10k17, coco17, crowdpose14, face68, halpe26, hand21, ",
    ),
    "unknown score": ('"min_logit"', '"max"', "key 'score' must be one of"),
    "name without its size": ("net-256x192", "net-192x256", "name must end in '-256x192' (got 'net-192x256')"),
    "name without a size": ("net-256x192", "net", "name must end in '-256x192' (got 'net')"),
    "no height": ("height = 256", "height = 0", "key 'height' must be from 1 to 8192 (got 0)"),
    "std of nothing": ("std = [58.395", "std = [0", "key 'std'[0] must be from 0.001 to 1e+06 (got 0.0)"),
    "no padding": ("box_padding = 1.25", "box_padding = -1", "key 'box_padding' must be from 0.1 to 10 (got -1.0)"),
    "no ratio": (
        "split_ratio = 2.0\n",
        "",
        "output.split_ratio and output.score belong to kind 'simcc' and only to it",
    ),
    "ratio of a heatmap": (
        'kind = "simcc"\nsplit',
        'kind = "heatmap"\nsplit',
        "belong to kind 'simcc' and only to it (got kind 'heatmap'",
    ),
    "ratio of nothing": (
        "split_ratio = 2.0",
        "split_ratio = 0",
        "'split_ratio' must be above 0 and at most 64 (got 0.0)",
    ),
    "ratio without end": ("split_ratio = 2.0", "split_ratio = inf", "key 'split_ratio' must be finite (got inf)"),
    "ratio that is no number": ("split_ratio = 2.0", "split_ratio = nan", "key 'split_ratio' must be finite (got nan)"),
    "ratio of one bin": ("split_ratio = 2.0", "split_ratio = 0.006", "at least 2 bins along x and along y (got 0.006)"),
    "mean that is no number": ("mean = [123.675", "mean = [nan", "key 'mean'[0] must be finite (got nan)"),
    "std that is no number": ("std = [58.395", "std = [nan", "key 'std'[0] must be finite (got nan)"),
    "std without end": ("std = [58.395", "std = [inf", "key 'std'[0] must be finite (got inf)"),
    "padding without end": ("box_padding = 1.25", "box_padding = inf", "key 'box_padding' must be finite (got inf)"),
    "padding that is no number": (
        "box_padding = 1.25",
        "box_padding = nan",
        "key 'box_padding' must be finite (got nan)",
    ),
    "padding beyond every picture": ("box_padding = 1.25", "box_padding = 1e30", "from 0.1 to 10 (got 1e+30)"),
    "ratio of a million": ("split_ratio = 2.0", "split_ratio = 1e6", "above 0 and at most 64 (got 1000000.0)"),
    "std next to nothing": ("std = [58.395", "std = [1e-30", "key 'std'[0] must be from 0.001 to 1e+06 (got 1e-30)"),
    "width of nothing": ("widen = 0.5", "widen = -0.5", "'widen' must be above 0 and at most 16 (got -0.5)"),
    "height beyond whole numbers": (
        "height = 256",
        f"height = {1 << 64}",
        "most 2^63 - 1 (got a number of 65 bits)",
    ),
    "one name for both axes": (
        "split_ratio = 2.0",
        'split_ratio = 2.0\nx_name = "simcc"\ny_name = "simcc"',
        "input and outputs must have names that differ (got 'input', 'simcc', 'simcc')",
    ),
    "an output named as the input": (
        "split_ratio = 2.0",
        'split_ratio = 2.0\ny_name = "input"',
        "must have names that differ (got 'input', 'simcc_x', 'input')",
    ),
    "an output without a name": (
        "split_ratio = 2.0",
        'split_ratio = 2.0\nx_name = ""',
        "differ (got 'input', ''",
    ),
    "name with a folder": ('"net-256x192"', '"a/net-256x192"', "begin with a letter or digit (got 'a/net-256x192')"),
    "name that hides": ('"net-256x192"', '".net-256x192"', "begin with a letter or digit (got '.net-256x192')"),
    "name with a space": ('"net-256x192"', '"my net-256x192"', "name must be of A-Z, a-z, 0-9"),
    "name in other letters": ('"net-256x192"', '"nét-256x192"', "name must be of A-Z, a-z, 0-9"),
    "name with a line's end": ('"net-256x192"', '"net\\n-256x192"', "name must be of A-Z, a-z, 0-9"),
    "weights over http": (
        "https://download",
        "http://download",
        "weights.url must be https (got 'http://download.test",
    ),
    "short digest": ('"0123abcd"', '"0123ab"', "weights.sha256 must be 7 to 64 lower-case hex digits (got '0123ab')"),
    "a date for a digest": (
        '"0123abcd"',
        '"20231122"',
        "weights.sha256 must be a digest, and '20231122' is a date; where no",
    ),
    "digest in capitals": (
        '"0123abcd"',
        '"0123ABCD"',
        "weights.sha256 must be 7 to 64 lower-case hex digits (got '0123ABCD')",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_recipe_is_refused_by_file_and_key(case, tmp_path):
    before, after, message = REFUSED[case]
    assert before in GOOD
    with pytest.raises(RecipeError) as caught:
        read(tmp_path, GOOD.replace(before, after, 1))
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["format = 1", "format = 1\nrecipes = 3", "format = 1\n[recipes]"])
def test_a_file_without_recipes_is_refused(text, tmp_path):
    with pytest.raises(RecipeError, match="key 'recipes' is missing; name at least one"):
        read(tmp_path, text)


@pytest.mark.parametrize("text", ["base = 3", "recipes.net = 3"], ids=["base", "recipe"])
def test_tables_must_be_tables(text, tmp_path):
    document = f'format = 1\n{text}\n[recipes."net-64x64"]\n'
    with pytest.raises(RecipeError, match=r"\[base\] and \[recipes\.\*\] must be tables"):
        read(tmp_path, document)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(RecipeError, match=r"recipe file '.*net.toml' cannot be read \(No such file or directory\)"):
        recipes_from_file(tmp_path / "net.toml")
    (tmp_path / "net.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match="is not TOML"):
        recipes_from_file(tmp_path / "net.toml")


def test_a_bad_recipe_does_not_hide_the_others_of_its_file(tmp_path):
    path = written(tmp_path, GOOD + '\n[recipes."no size".input]\nheight = 64\nwidth = 64\n')
    assert recipe_from_file(path, "net-64x64").name == "net-64x64"
    with pytest.raises(RecipeError, match="recipe 'no size': name must be of"):
        recipe_from_file(path, "no size")
    with pytest.raises(RecipeError, match=r"holds .*net-64x64.*, no size: name one of them as RECIPE \(got none\)"):
        recipe_from_file(path)


THRESHOLDS = {  # what output and protocol say -> the score that a joint must pass
    "min_logit": ({"kind": "simcc", "split_ratio": 2.0, "score": "min_logit"}, {}, 0.2),
    "mean_logit": ({"kind": "simcc", "split_ratio": 2.0, "score": "mean_logit"}, {}, 0.2),
    "min_softmax": ({"kind": "simcc", "split_ratio": 2.0, "score": "min_softmax"}, {}, 0.0),
    "heatmap": ({"kind": "heatmap"}, {}, 0.2),
    "told": ({"kind": "simcc", "split_ratio": 2.0, "score": "min_softmax"}, {"joint_threshold": 0.01}, 0.01),
}  # fmt: skip


@pytest.mark.parametrize(("output", "protocol", "threshold"), THRESHOLDS.values(), ids=THRESHOLDS)
def test_the_joint_threshold_follows_the_score_rule(output, protocol, threshold):
    table = recipe_by_name("body14-nano-128x128").to_table()
    table |= {"output": output, "protocol": {"flip_test": False, "flip_shift": False, **protocol}}
    if output["kind"] == "heatmap":
        table["network"] = {**table["network"], "head": {"kind": "heatmap", "deconv": []}}
    recipe = recipe_from_table(table, "a table")
    assert recipe.joint_threshold == threshold
    assert recipe_from_table(recipe.to_table(), "its own table") == recipe


def test_a_joint_set_may_be_written_out(tmp_path):
    plain = read(tmp_path)["net-64x64"].to_table()
    plain["skeleton"] = {
        "name": "hands",
        "joints": ["left_hand", "right_hand"],
        "flip_pairs": [[0, 1]],
        "limbs": [[0, 1]],
        "sigmas": [0.1, 0.1],
    }
    recipe = recipe_from_table(plain, "a table")
    assert isinstance(recipe, Recipe)
    assert (recipe.joints, recipe.skeleton.flip_order) == (2, (1, 0))
    plain["skeleton"] |= {"groups": {"left": [0]}, "sigmas": [], "nme_joints": [0, 1]}
    grouped = recipe_from_table(plain, "a table")
    assert (grouped.skeleton.groups, grouped.skeleton.nme_joints) == ({"left": (0,)}, (0, 1))
    assert recipe_from_table(grouped.to_table(), "its own table") == grouped
    plain["skeleton"]["flip_pairs"] = [[0, 2]]
    with pytest.raises(RecipeError, match="flip_pairs must join two joints of 0 to 1"):
        recipe_from_table(plain, "a table")


@pytest.mark.parametrize(
    ("asked", "near"),
    [("rtmpose-s-256x129", "rtmpose-s-256x192"), ("hrnet-w32-256", "hrnet-w32-256x192"), ("simba-r50", "simba-r50")],
)
def test_an_unknown_name_suggests_near_ones(asked, near):
    with pytest.raises(
        RecipeError, match=f"recipe '{asked}' is not in the catalogue; did you mean .*{near}.*sdk models"
    ):
        recipe_by_name(asked)


def test_a_name_like_none_suggests_none():
    with pytest.raises(RecipeError, match=r"is not in the catalogue\. `sdk models` lists all"):
        recipe_by_name("qqqqqqqq")
