"""`sdk export`: a network as an ONNX graph, compared with torch on crops before it is written.

sdk export rtmpose-s-256x192 --output rtmpose-s.onnx
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from sdk.cli._paths import refuse_overwriting
from sdk.cli._recipes import add_recipe_arguments, add_weights_arguments, check_seed, recipe_from, weights_from

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_arguments(parser)
    add_weights_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="F.onnx")
    parser.add_argument("--json", action="store_true", help="what was written, for machines")


def run(arguments: argparse.Namespace) -> int:
    from sdk.toolchain.export import graph_from_recipe, write_graph
    from sdk.toolchain.graphs import graph_inputs, graph_outputs, opset_of

    check_seed(arguments)
    weights, seed = weights_from(arguments)
    refuse_overwriting({"--output": arguments.output}, [weights, arguments.recipe_file])
    model, note = graph_from_recipe(recipe_from(arguments), weights=weights, random_seed=seed, images=arguments.images)
    write_graph(model, arguments.output)
    if arguments.json:
        tensors = {t.name: list(t.shape) for t in (*graph_inputs(model), *graph_outputs(model))}
        facts = {"file": str(arguments.output), "opset": opset_of(model), "tensors": tensors, "weights": note.kind}
        print(json.dumps(facts, indent=1))
    else:
        print(arguments.output)
    return 0
