"""Filling a network from a checkpoint, key by key and strictly. Reading the file is `reader`'s work.

A checkpoint of another project is renamed by its layout (`layouts`); nothing is skipped, guessed or partly loaded.

    load_checkpoint(network, recipe, Path("pose_resnet_50_256x192.pth"))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sdk.errors import CheckpointError
from sdk.networks.fitting import found_in_shapes, nearest_recipe
from sdk.networks.layouts import sdk_key
from sdk.networks.reader import state_from_file
from sdk.recipe import Recipe, catalogue

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["load_checkpoint"]

SHOWN = 10  # keys of each kind that an error lists


@dataclass(frozen=True)
class _Differences:
    missing: tuple[str, ...]  # in our naming
    unexpected: tuple[str, ...]  # in the file's naming
    misshapen: tuple[str, ...]  # with both shapes

    @property
    def count(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.misshapen)


def load_checkpoint(network: nn.Module, recipe: Recipe, path: Path) -> None:
    """Fill `network`, built from `recipe`, with the checkpoint at `path`; CheckpointError leaves it as it was."""
    state = state_from_file(path)
    target = dict(network.state_dict())
    renamings = [{sdk_key(key, layout): key for key in state} for layout in dict.fromkeys((recipe.layout, "sdk"))]
    differences = [_differences(state, names, target) for names in renamings]
    best = min(range(len(renamings)), key=lambda index: differences[index].count)
    if differences[best].count:
        raise CheckpointError(_mismatch(path, recipe, state, differences[best]))
    _check_finite(path, state)
    for ours, key in renamings[best].items():
        target[ours].copy_(state[key])


def _differences(state: Mapping[str, Tensor], names: Mapping[str, str], target: Mapping[str, Tensor]) -> _Differences:
    """`names`: our name of each key of the file. Counters of batches seen may be absent: old torch had none."""
    missing = [k for k in target if k not in names and not k.endswith(".num_batches_tracked")]
    unexpected = [key for ours, key in names.items() if ours not in target]
    misshapen = [
        f"{key} (file {_dims(state[key])}, network {_dims(target[ours])})"
        for ours, key in names.items()
        if ours in target and state[key].shape != target[ours].shape
    ]
    return _Differences(tuple(missing), tuple(unexpected), tuple(misshapen))


def _mismatch(path: Path, recipe: Recipe, state: Mapping[str, Tensor], differences: _Differences) -> str:
    kinds = (
        ("missing, by our names", differences.missing),
        ("unexpected", differences.unexpected),
        ("of another shape", differences.misshapen),
    )
    told = "; ".join(
        f"{len(keys)} {'key' if len(keys) == 1 else 'keys'} {kind}: {_listed(keys)}" for kind, keys in kinds if keys
    )
    return f"checkpoint '{path}' does not fit recipe '{recipe.name}': {told}. {_advice(state)}"


def _advice(state: Mapping[str, Tensor]) -> str:
    found = found_in_shapes({key: tuple(tensor.shape) for key, tensor in state.items()})
    if found is None:
        return "Its keys are of no network the SDK has; check that it is the checkpoint you mean"
    nearest = nearest_recipe(found, catalogue())
    if nearest is None:
        return f"It holds {found}; no recipe has such a backbone"
    name, differing = nearest
    if not differing:
        return f"It fits recipe '{name}'; use that one"
    return (
        f"It holds {found}; the nearest recipe is '{name}', which differs in {', '.join(differing)}: "
        "write a recipe file for it, from that one, and give it with --recipe-file"
    )


def _check_finite(path: Path, state: Mapping[str, Tensor]) -> None:
    for key, tensor in state.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise CheckpointError(
                f"checkpoint '{path}': weights must be finite numbers, '{key}' is not; fetch it again"
            )


def _listed(keys: Sequence[str]) -> str:
    rest = f", and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return ", ".join(keys[:SHOWN]) + rest


def _dims(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
