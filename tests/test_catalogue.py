"""The catalogue: the names it must have, facts of the released networks, its document, and `sdk models`."""

import json
import re
import sys
from pathlib import Path

import pytest

from sdk.cli import main
from sdk.cli.models import markdown_from_rows, rows_from_recipes
from sdk.errors import RecipeError
from sdk.networks import cost_of, kept_costs
from sdk.networks.weights import weights_path
from sdk.recipe import catalogue, recipe_by_name, recipes_from_file
from sdk.resources import CACHE_VARIABLE, catalogue_folder

CATALOGUE = catalogue()
DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "networks.md"

# name -> bins a pixel (None: heatmaps)
PROMISED = {
    **{f"rtmpose-{size}-256x192": 2 for size in "tsml"},
    "rtmpose-m-384x288": 2,
    "rtmpose-l-384x288": 2,
    "simba-r50-deconv-64x64": 3,
    "simba-r50-deconv-128x128": 3,
    "simba-r50-deconv-256x192": 2,
    "simba-r50-deconv-384x288": 2,
    "simba-r101-deconv-64x64": 3,
    "simba-r101-deconv-128x128": 2,
    "simba-r101-deconv-256x192": 2,
    "simba-r101-deconv-384x288": 2,
    "simba-r152-deconv-384x288": 2,
    "simba-r50-upfree-64x64": 3,
    "simba-r50-upfree-128x128": 3,
    "simba-r50-upfree-256x192": 2,
    **{f"hrnet-{width}-64x64": 3 for width in ("w32", "w48")},
    **{f"hrnet-{width}-128x128": 2 for width in ("w32", "w48")},
    **{f"hrnet-{width}-256x192": 2 for width in ("w32", "w48")},
    "hrnet-w48-384x288": 1.5,
    "tokenpose-s-64x64": 3,
    "tokenpose-s-128x128": 2,
    "tokenpose-s-256x192": 2,
    "mpii-hrnet-w32-64x64": 3,
    "mpii-hrnet-w32-256x256": 2,
    **{f"rtmpose-{size}-wholebody-256x192": 2 for size in "ml"},
    **{f"rtmpose-{size}-wholebody-384x288": 2 for size in "lx"},
    **{f"dwpose-{size}-256x192": 2 for size in "tsml"},
    "dwpose-l-384x288": 2,
    **{f"rtmw-{size}-256x192": 2 for size in "mlx"},
    **{f"rtmw-{size}-384x288": 2 for size in "lx"},
    **{f"rtmw3d-{size}-384x288": 2 for size in "lx"},
    **{f"rtmpose-m-{part}-256x256": 2 for part in ("hand5", "face6", "wflw", "ap10k")},
    "rtmpose-m-humanart-256x192": 2,
    "mmpose-simcc-r50-256x192": 2,
    "mmpose-simcc-r50-384x288": 2,
    "mmpose-simcc-mobilenetv2-256x192": 2,
    **{f"simba-r50-heatmap-{size}": None for size in ("64x64", "128x128", "256x192", "384x288")},
    **{f"hrnet-w32-heatmap-{size}": None for size in ("64x64", "128x128", "256x192", "384x288")},
}

# A recipe, a figure, and where it stands in the released tables.
FIGURES = {
    "simba-r50-deconv-64x64": ("AP", 40.8),
    "simba-r101-deconv-128x128": ("AP", 63.1),
    "hrnet-w32-256x192": ("AP", 75.3),
    "hrnet-w48-384x288": ("AP", 76.9),
    "tokenpose-s-256x192": ("AP", 73.6),
    "simba-r50-heatmap-256x192": ("AP", 70.4),
    "mmpose-simcc-r50-256x192": ("AP", 72.1),
    "mmpose-simcc-mobilenetv2-256x192": ("AP", 62.0),
    "rtmpose-s-256x192": ("AP", 72.2),
    "rtmpose-l-384x288": ("AP", 77.3),
    "rtmpose-m-crowdpose-256x192": ("AP", 70.6),
    "mpii-hrnet-w32-256x256": ("PCKh@0.5", 89.6),
    "rtmpose-m-wholebody-256x192": ("AP", 58.2),
    "dwpose-l-384x288": ("AP", 66.5),
    "rtmw-x-384x288": ("AP", 70.2),
    "rtmw3d-l-384x288": ("AP", 67.8),
    "rtmpose-m-hand5-256x256": ("PCK@0.2", 96.4),
    "rtmpose-m-face6-256x256": ("NME", 1.44),
    "rtmpose-m-ap10k-256x256": ("AP", 72.2),
    "rtmpose-m-humanart-256x192": ("AP", 72.8),
}


@pytest.mark.parametrize("name", PROMISED)
def test_the_promised_networks_are_there(name):
    recipe = CATALOGUE[name]
    assert recipe.output.split_ratio == PROMISED[name]
    assert recipe.name == name


@pytest.mark.parametrize("name", FIGURES)
def test_published_figures(name):
    first = CATALOGUE[name].published[0]
    assert (first.metric, first.value) == FIGURES[name]


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_recipe_tells_where_it_comes_from(name):
    recipe = CATALOGUE[name]
    assert recipe.description
    assert recipe.source
    assert recipe.licence
    for figure in recipe.published:
        assert 0 < figure.value < 100
        assert figure.dataset
        assert figure.boxes
        assert figure.source
    joints_of_dataset = {"COCO val2017": 17, "CrowdPose test": 14, "MPII val": 16}
    assert all(joints_of_dataset.get(figure.dataset, recipe.joints) == recipe.joints for figure in recipe.published)


@pytest.mark.parametrize("name", [name for name, recipe in CATALOGUE.items() if recipe.weights is not None])
def test_weights_are_named_with_their_digest(name):
    """OpenMMLab puts the first digits of a file's sha256 into its name (before the date), and its network's size.

    Eight of them; one name has seven, and RTMW-m's and RTMW-l's have a date alone, which no recipe takes for a digest.
    """
    recipe = CATALOGUE[name]
    found = re.fullmatch(
        r"https://download\.openmmlab\.com/mmpose/v1/\S+/(\S+?)(?:-([0-9a-f]{7,8}))?[_-]\d{8}\.pth", recipe.weights.url
    )
    assert found is not None
    assert recipe.weights.sha256 == found[2]
    if re.fullmatch(r"rtmw-[ml]-.*", name):
        assert found[2] is None
    else:
        assert len(found[2]) == (7 if name == "rtmpose-m-hand5-256x256" else 8)
    assert found[1].endswith(f"{recipe.input.height}x{recipe.input.width}")
    assert recipe.layout == "mmpose"


def test_no_two_recipes_share_weights():
    urls = [recipe.weights.url for recipe in CATALOGUE.values() if recipe.weights is not None]
    assert len(urls) == len(set(urls)) >= 24


@pytest.mark.parametrize("name", CATALOGUE)
def test_colours_and_numbers_are_those_of_training(name):
    recipe = CATALOGUE[name]
    authors_resnet = recipe.source == "leeyegy/SimCC" and recipe.network.backbone.kind == "resnet"
    assert recipe.input.colour == ("bgr" if authors_resnet else "rgb")
    assert recipe.input.mean == (123.675, 116.28, 103.53)
    assert recipe.input.std == (58.395, 57.12, 57.375)
    assert recipe.input.box_padding == 1.25
    if recipe.output.kind == "simcc":
        assert recipe.output.score == ("min_logit" if recipe.source == "open-mmlab/mmpose" else "min_softmax")
    if recipe.source.startswith("leeyegy/SimCC"):
        assert recipe.protocol.flip_shift
    if recipe.source in ("open-mmlab/mmpose", "leeyegy/TokenPose"):
        assert not recipe.protocol.flip_shift


def test_third_axes_are_those_of_the_configurations():
    for size in "lx":
        depth = CATALOGUE[f"rtmw3d-{size}-384x288"].output.depth
        assert (depth.bins, depth.span, depth.unit) == (2 * 288, 2.1744869, "m")
        assert depth.root == ("left_hip", "right_hip")
    assert [name for name, recipe in CATALOGUE.items() if recipe.output.depth is not None] == [
        "rtmw3d-l-384x288",
        "rtmw3d-x-384x288",
    ]


def test_a_name_that_is_there_twice_is_refused(tmp_path, monkeypatch):
    text = (catalogue_folder("engines") / "mmpose-simcc.toml").read_text()
    for name in ("a.toml", "b.toml"):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr("sdk.recipe_files.catalogue_folder", lambda _: tmp_path)
    with pytest.raises(RecipeError, match=r"b\.toml: recipe 'mmpose-simcc-\S+' is in the catalogue twice; rename one"):
        catalogue()


# ---- the document


def test_the_document_holds_the_table():
    """`sdk models --markdown` makes it; the cache has no say in it."""
    table = re.search(r"compares -->\n(.*)\n<!-- end -->", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    rows = rows_from_recipes(CATALOGUE.values())
    for row in rows:
        if row["weights"] is not None:
            row["weights"]["cached"] = False  # whatever this machine has fetched
    assert table[1] == markdown_from_rows(rows)


def test_the_documents_recipe_is_one(tmp_path):
    text = DOCUMENT.read_text(encoding="utf-8").split("## Your own recipe")[1]
    code = [line[4:] for line in text.splitlines() if line.startswith("    ")]
    (tmp_path / "mine.toml").write_text("\n".join(code), encoding="utf-8")
    recipe = recipes_from_file(tmp_path / "mine.toml")["mynet-256x192"]
    assert recipe.network == recipe_by_name("rtmpose-s-256x192").network


# ---- sdk models


@pytest.mark.torch
def test_the_kept_costs_are_those_of_the_networks():
    counted = {name: cost_of(recipe) for name, recipe in CATALOGUE.items()}
    assert kept_costs() == counted, "count anew: python -c 'from sdk.networks.cost import keep_costs; keep_costs()'"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    return tmp_path


def test_models_as_text(capsys, cache):
    assert main(["models", "rtmpose-s"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:7] == ["NAME", "JOINTS", "INPUT", "K", "PARAMETERS", "GFLOPS", "WEIGHTS"]
    assert head.split()[7:] == ["LICENCE", "PUBLISHED", "SOURCE"]
    assert [line.split()[0] for line in lines] == [name for name in CATALOGUE if "rtmpose-s" in name]
    assert lines[0].split() == [
        "rtmpose-s-256x192", "17", "256x192", "2", "5.47", "M", "0.68", "yes", "Apache-2.0",
        "AP", "72.2", "COCO", "val2017", "open-mmlab/mmpose",
    ]  # fmt: skip


def test_models_as_json(capsys, cache):
    assert main(["models", "rtmpose-s-256x192", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    recipe = CATALOGUE["rtmpose-s-256x192"]
    assert (row["joints"], row["joint_set"], row["input_hw"], row["split_ratio"]) == (17, "coco17", [256, 192], 2.0)
    assert row["parameters"] == pytest.approx(5.47e6, rel=2e-3)
    assert row["gflops"] == pytest.approx(0.68, rel=2e-2)
    assert row["weights"] == {
        "url": recipe.weights.url,
        "sha256": recipe.weights.sha256,
        "file": str(weights_path(recipe)),
        "cached": False,
    }
    assert row["published"][0]["value"] == 72.2
    assert row["published"][0]["source"].startswith("open-mmlab/mmpose")


def test_models_says_which_weights_are_here(capsys, cache):
    path = weights_path(CATALOGUE["rtmpose-s-256x192"])
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    assert main(["models", "rtmpose-s-256x192"]) == 0
    assert " here " in capsys.readouterr().out


def test_models_needs_no_torch(capsys, cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["models", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == list(CATALOGUE)
    assert main(["models"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(CATALOGUE)


def test_models_says_which_weights_are_bundled(capsys, cache, monkeypatch, tmp_path):
    monkeypatch.setattr("sdk.cli.models.bundled_weights", lambda name: tmp_path / f"{name}.safetensors")
    assert main(["models", "hrnet-w32-64x64"]) == 0
    assert " bundled " in capsys.readouterr().out
    assert main(["models", "hrnet-w32-64x64", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["weights"]["file"] for row in rows} == {str(tmp_path / f"{row['name']}.safetensors") for row in rows}
    assert all(row["weights"]["url"] is None and row["weights"]["cached"] for row in rows)


def test_models_of_no_such_name(capsys, cache):
    assert main(["models", "resnext"]) == 1
    assert "no recipe's name contains 'resnext'; `sdk models` lists all" in capsys.readouterr().err
