"""`sdk export-triton`: a Triton model repository of an engine.

sdk export-triton rtmpose-m-256x192.fp16 --output repository
sdk export-triton body.fp16 --output repository --name body --model-version 2      # beside version 1
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("engine", metavar="ENGINE", help="engine folder, or a bundled engine's name")
    parser.add_argument("--output", type=Path, required=True, metavar="REPO", help="the repository; may hold others")
    parser.add_argument("--name", help="of the model that does the whole job; default: the recipe's")
    parser.add_argument("--kind", choices=("cpu", "gpu"), help="where it runs; default: gpu where there is a plan")
    parser.add_argument(
        "--backend", choices=("auto", "tensorrt", "onnxruntime"), default="auto",
        help="of the network by itself; default: the plan where it is TensorRT's, else the typed graph",
    )  # fmt: skip
    parser.add_argument("--instances", type=int, default=1, help="of each model, on each GPU or on the CPU")
    parser.add_argument("--model-version", type=int, default=1, metavar="N", help="the version's folder")
    parser.add_argument(
        "--delay-us", type=int, default=0, metavar="US",
        help="how long a request may wait for others to share its batch; a lone one pays it too",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Write the repository and name its models."""
    from sdk.runtime.opening import engine_from
    from sdk.serving.triton import Options, write_repository

    engine = engine_from(arguments.engine)
    compiled = engine.manifest.compiler is not None
    options = Options(
        name=arguments.name or engine.manifest.recipe.name,
        kind=arguments.kind or ("gpu" if compiled else "cpu"),
        backend=arguments.backend,
        instances=arguments.instances,
        version=arguments.model_version,
        delay_us=arguments.delay_us,
    )
    folders = write_repository(arguments.output, engine, options)
    if arguments.json:
        print(json.dumps({"repository": str(arguments.output), "models": [folder.name for folder in folders]}))
    else:
        print(f"{arguments.output}: {', '.join(folder.name for folder in folders)}")
        print(f"serve it with tritonserver --model-repository={arguments.output}; its Python needs the SDK installed")
    return 0
