"""From a network to a graph: traced, simplified, checked, and compared with the network on crops.

Not precision (`sdk.toolchain.precision`), and not graphs made elsewhere (`sdk.toolchain.foreign`).

    model = graph_from_network(network, recipe)
    distance_px = check_graph(model, network, recipe, comparison_crops(recipe))

The graph keeps the module path of every node, as in `/backbone/stage1/stage1.0/conv/Conv`, so that patterns and reports
can point at layers; batch norms are folded into their convolutions, SiLU is Sigmoid and Mul.
"""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from sdk.errors import GraphError, InputError
from sdk.files import write_bytes
from sdk.manifest import GRAPH_NAME, WeightsNote, sha256_of_file
from sdk.networks import load_checkpoint, network_from_recipe, random_weights
from sdk.reading import json_from_text
from sdk.recipe import Recipe, recipe_from_table
from sdk.resources import bundled_engine_of, bundled_weights
from sdk.toolchain.comparison import ComparisonCrops, comparison_crops, keypoint_distance
from sdk.toolchain.foreign import slim
from sdk.toolchain.graphs import OPSET, graph_session, serialized

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "check_graph",
    "graph_from_network",
    "graph_from_recipe",
    "recipe_from_graph",
    "write_graph",
]

LARGEST_DISTANCE_PX = 0.05
RECIPE_KEY = "simcc_edge_sdk.recipe"

log = logging.getLogger(__name__)


def graph_from_recipe(
    recipe: Recipe, *, weights: Path | None = None, random_seed: int | None = None, images: Path | None = None
) -> tuple[onnx.ModelProto, WeightsNote]:
    """The recipe's graph, compared with its network, and where its weights come from.

    `weights`: a checkpoint; else `random_seed`; else the checkpoint that the recipe names, downloaded once.
    """
    network = network_from_recipe(recipe)
    if random_seed is not None:
        random_weights(network, random_seed)
        note = WeightsNote("random", f"seed {random_seed}")
    else:
        note = _load(network, recipe, weights)
    model = graph_from_network(network, recipe)
    crops = comparison_crops(recipe, images)
    distance_px = check_graph(model, network, recipe, crops)
    log.info("graph and network agree on %s: mean keypoint distance %.4f px", crops.source, distance_px)
    return model, note


def graph_from_network(network: nn.Module, recipe: Recipe) -> onnx.ModelProto:
    """The network's float graph, batch dynamic, with the recipe's tensor names and the recipe in its metadata."""
    import torch

    names = recipe.output.names
    crops = torch.from_numpy(_noise(2, recipe))
    with warnings.catch_warnings(), torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # of the older exporter and its tracer; the graph is compared afterwards
        torch.onnx.export(
            network.eval(),
            (crops,),
            Path(folder) / GRAPH_NAME,
            input_names=[recipe.input.name],
            output_names=list(names),
            dynamic_axes={name: {0: "batch"} for name in (recipe.input.name, *names)},
            opset_version=OPSET,
            dynamo=False,
        )
        model = slim(onnx.load(Path(folder) / GRAPH_NAME))
    _declare_shapes(model, network, recipe, crops)
    onnx.helper.set_model_props(model, {RECIPE_KEY: json.dumps(recipe.to_table())})
    onnx.checker.check_model(model, full_check=True)
    return model


def check_graph(model: onnx.ModelProto, network: nn.Module, recipe: Recipe, crops: ComparisonCrops) -> float:
    """Mean keypoint distance in crop pixels between graph and network; GraphError above 0.05 px."""
    import torch

    with torch.no_grad():
        answer = network(torch.from_numpy(crops.crops))
    expected = [tensor.numpy() for tensor in (answer if isinstance(answer, tuple) else (answer,))]
    found = graph_session(model).run(list(recipe.output.names), {recipe.input.name: crops.crops})
    distance_px = keypoint_distance(found, expected, recipe)
    if not all(np.isfinite(array).all() for array in found) or not distance_px <= LARGEST_DISTANCE_PX:
        raise GraphError(
            f"the exported graph of '{recipe.name}' differs from its network: mean keypoint distance on {crops.source} "
            f"must be at most {LARGEST_DISTANCE_PX} px (got {distance_px:.3f}); this torch and onnx cannot export it"
        )
    return distance_px


def recipe_from_graph(path: Path) -> Recipe | None:
    """The recipe that `sdk export` wrote into an ONNX file; None for files made elsewhere."""
    try:
        model = onnx.load(str(path), load_external_data=False)
    except OSError as error:
        raise GraphError(f"ONNX file '{path}' cannot be read ({error.strerror}); check the path") from error
    except DecodeError as error:
        raise GraphError(f"'{path}' is not an ONNX file, or is truncated ({error}); export it again") from error
    tables = [entry.value for entry in model.metadata_props if entry.key == RECIPE_KEY]
    if not tables:
        return None
    table = json_from_text(tables[0], f"'{path}': the recipe in its metadata", GraphError, "export it again")
    return recipe_from_table(table, f"'{path}': recipe in its metadata")


def write_graph(model: onnx.ModelProto, path: Path) -> None:
    """The graph as a file, whole or not at all."""
    write_bytes(path, serialized(model))


def _load(network: Any, recipe: Recipe, weights: Path | None) -> WeightsNote:
    if weights is None and recipe.weights is None:
        weights = bundled_weights(recipe.name)
    if weights is None and recipe.weights is None:
        ships = bundled_engine_of(recipe.name) is not None
        told = "has its weights in the source distribution, not in a wheel" if ships else "names no released weights"
        raise InputError(f"recipe '{recipe.name}' {told}; give --weights FILE, or --weights random for timing")
    from sdk.networks import weights_file

    path = weights_file(recipe) if weights is None else weights
    load_checkpoint(network, recipe, path)
    source = path.name if weights is not None or recipe.weights is None else recipe.weights.url
    return WeightsNote("checkpoint", source, sha256_of_file(path))


def _declare_shapes(model: onnx.ModelProto, network: Any, recipe: Recipe, crops: Any) -> None:
    """Outputs as batch x sizes: the exporter leaves some sizes unnamed."""
    answer = network(crops)
    tensors = answer if isinstance(answer, tuple) else (answer,)
    del model.graph.output[:]
    for name, tensor in zip(recipe.output.names, tensors, strict=True):
        shape: list[str | int | None] = ["batch", *tensor.shape[1:]]
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))


def _noise(count: int, recipe: Recipe) -> np.ndarray[Any, np.dtype[np.float32]]:
    shape = (count, 3, *recipe.input.size_hw)
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)
