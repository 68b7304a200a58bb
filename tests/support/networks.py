"""Recipes for networks that no catalogue has, and the authors' outputs (`../shared/parity`) as a table of cases."""

import json
import re
import zlib
from dataclasses import replace

import numpy as np

from sdk.networks.fitting import found_in_shapes
from sdk.recipe import DepthAxis, Input, Output, Protocol, Recipe
from sdk.recipe_networks import Network
from sdk.skeletons import SKELETONS, Skeleton

LAYOUT_OF_SOURCE = {"leeyegy/SimCC": "simcc", "leeyegy/TokenPose": "tokenpose", "open-mmlab/mmpose": "mmpose"}
PARITY_SEED = 20261122


def skeleton_of(count):
    """A joint set of `count` joints: a known one, else one without pairs."""
    for skeleton in SKELETONS.values():
        if len(skeleton.joints) == count:
            return skeleton
    return Skeleton(f"any{count}", tuple(f"joint{i}" for i in range(count)), (), (), (0.1,) * count)


def recipe_of(backbone, head, size_hw, *, neck=None, joints=17, split_ratio=2.0, bins_z=None, layout="sdk"):
    """A recipe of these parts; `split_ratio` None for heatmaps, `bins_z` for a third axis, in metres from the nose."""
    score, skeleton = None if split_ratio is None else "min_logit", skeleton_of(joints)
    depth = None if bins_z is None else DepthAxis(bins_z, 2.0, "m", skeleton.joints[:1])
    return Recipe(
        name=f"any-{size_hw[0]}x{size_hw[1]}",
        description="for a test",
        source="tests",
        licence="Apache-2.0",
        network=Network(backbone, head, neck),
        input=Input(*size_hw, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "rgb", 1.25),
        output=Output("heatmap" if split_ratio is None else "simcc", split_ratio, score, depth=depth),
        skeleton=skeleton,
        protocol=Protocol(flip_test=False, flip_shift=False),
        layout=layout,
    )


def parity_documents(folder):
    """Every network in the folder, in `more` and in `live`, by name: its JSON and the path of its outputs.

    Of two of one name `live` has the say: an image reaches the outputs there, which it does not under the older rule.
    """
    paths = [path for part in (".", "more", "live") for path in sorted((folder / part).glob("*.json"))]
    return {path.stem: (json.loads(path.read_text()), path.with_suffix(".npz")) for path in paths}


def recipe_from_parity(document):
    """The recipe that a parity document describes: from its keys and shapes, its input and its configuration's name."""
    shapes = {key: tuple(shape) for key, shape in document["state_dict"].items()}
    size_hw = tuple(document["input"][2:])
    found = found_in_shapes(shapes, size_hw)
    assert found is not None, f"{document['name']}: keys of no network the SDK has"
    assert found.layout == LAYOUT_OF_SOURCE[document["source"]]
    backbone = found.network.backbone
    if heads := re.search(r"heads(\d+)", document["config"]):  # not in the shapes
        backbone = replace(backbone, heads=int(heads.group(1)))
    return recipe_of(
        backbone,
        found.network.head,
        size_hw,
        neck=found.network.neck,
        joints=found.joints,
        split_ratio=document["split_ratio"],
        bins_z=found.bins_z,
        layout=found.layout,
    )


def parity_state(document):
    """The weights that follow from a parity document's keys and shapes, as its README says."""
    gain = document.get("gain", 0.5)
    return {key: _parity_value(key, tuple(shape), gain) for key, shape in document["state_dict"].items()}


def parity_input(document):
    rng = np.random.default_rng(PARITY_SEED)
    return rng.standard_normal(document["input"]).astype(np.float32)


def _parity_value(key, shape, gain):
    noise = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        value = np.zeros(shape)
    elif leaf == "running_var":
        value = 1 + 0.2 * np.abs(noise)
    elif leaf in ("running_mean", "bias", "beta"):
        value = 0.1 * noise
    elif len(shape) >= 2:
        value = noise * np.sqrt(gain / np.prod(shape[1:]))
    else:
        value = 1 + 0.1 * noise
    return np.asarray(value, np.float32)
