"""Filling a network from a checkpoint, key by key and strictly. Reading the file is `reader`'s work.

A checkpoint of another project is renamed by its layout (`layouts`); nothing is skipped, guessed or partly loaded.

    load_checkpoint(network, recipe, Path("pose_resnet_50_256x192.pth"))
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sdk.errors import CheckpointError
from sdk.networks.build import network_from_recipe
from sdk.networks.fitting import found_in_shapes, nearest_recipe
from sdk.networks.layouts import sdk_key
from sdk.networks.reader import checkpoint_from_file
from sdk.recipe import Recipe, catalogue

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Differences", "check_finite", "compared", "load_checkpoint", "mismatch"]

SHOWN = 10  # keys of each kind that an error lists


@dataclass(frozen=True)
class Differences:
    """Where a checkpoint and a network differ."""

    missing: tuple[str, ...]  # in our naming
    unexpected: tuple[str, ...]  # in the file's naming
    misshapen: Mapping[str, str]  # in the file's naming: both shapes

    @property
    def count(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.misshapen)

    def without(self, keys: Collection[str]) -> Differences:
        """The same, but for the shapes of `keys`."""
        return replace(self, misshapen={key: told for key, told in self.misshapen.items() if key not in keys})

    def __str__(self) -> str:
        kinds = (
            ("missing, by our names", self.missing),
            ("unexpected", self.unexpected),
            ("of another shape", [f"{key} ({told})" for key, told in self.misshapen.items()]),
        )
        return "; ".join(
            f"{len(keys)} {'key' if len(keys) == 1 else 'keys'} {kind}: {_listed(keys)}" for kind, keys in kinds if keys
        )


def load_checkpoint(network: nn.Module, recipe: Recipe, path: Path) -> None:
    """Fill `network`, built from `recipe`, with the checkpoint at `path`; CheckpointError leaves it as it was."""
    checkpoint = checkpoint_from_file(path)
    state, target = checkpoint.state, dict(network.state_dict())
    names, differences = compared(state, recipe, target)
    if differences.count:
        raise CheckpointError(mismatch(path, recipe, state, differences))
    if checkpoint.trained_here and checkpoint.joints not in (None, recipe.skeleton.joints):
        raise CheckpointError(_other_joints(path, recipe, checkpoint.joints or ()))
    check_finite(path, state)
    for ours, key in names.items():
        target[ours].copy_(state[key])


def compared(
    state: Mapping[str, Tensor], recipe: Recipe, target: Mapping[str, Tensor]
) -> tuple[dict[str, str], Differences]:
    """The file's key of each of our names, by the layout that fits best, and what does not fit."""
    renamings = [{sdk_key(key, layout): key for key in state} for layout in dict.fromkeys((recipe.layout, "sdk"))]
    both = [(names, _differences(state, names, target)) for names in renamings]
    return min(both, key=lambda pair: pair[1].count)


def mismatch(path: Path, recipe: Recipe, state: Mapping[str, Tensor], differences: Differences) -> str:
    """The message for a checkpoint that does not fit, with the recipe that would."""
    return f"checkpoint '{path}' does not fit recipe '{recipe.name}': {differences}. {_advice(state)}"


def check_finite(path: Path, state: Mapping[str, Tensor]) -> None:
    """CheckpointError for a weight that is no number."""
    for key, tensor in state.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise CheckpointError(
                f"checkpoint '{path}': weights must be finite numbers, '{key}' is not; fetch it again"
            )


def _differences(state: Mapping[str, Tensor], names: Mapping[str, str], target: Mapping[str, Tensor]) -> Differences:
    """`names`: our name of each key of the file. Counters of batches seen may be absent: old torch had none."""
    missing = [k for k in target if k not in names and not k.endswith(".num_batches_tracked")]
    unexpected = [key for ours, key in names.items() if ours not in target]
    misshapen = {
        key: f"file {_dims(state[key])}, network {_dims(target[ours])}"
        for ours, key in names.items()
        if ours in target and state[key].shape != target[ours].shape
    }
    return Differences(tuple(missing), tuple(unexpected), misshapen)


def _other_joints(path: Path, recipe: Recipe, theirs: Sequence[str]) -> str:
    pairs = zip(theirs, recipe.skeleton.joints, strict=False)
    place, (their, our) = next(each for each in enumerate(pairs) if each[1][0] != each[1][1])
    return (
        f"checkpoint '{path}' was trained for other joints than recipe '{recipe.name}' has: joint {place} is '{their}' "
        f"there and '{our}' here; give the recipe file that it was trained with, or `sdk train --weights` it onto these"
    )


def _advice(state: Mapping[str, Tensor]) -> str:
    found = found_in_shapes({key: tuple(tensor.shape) for key, tensor in state.items()})
    if found is None:
        return "Its keys are of no network the SDK has; check that it is the checkpoint you mean"
    recipes = catalogue()
    nearest = nearest_recipe(found, recipes)
    if nearest is None:
        return f"It holds {found}; no recipe has such a backbone"
    name, differing = nearest
    if differing:
        return (
            f"It holds {found}; the nearest recipe is '{name}', which differs in {', '.join(differing)}: "
            "write a recipe file for it, from that one, and give it with --recipe-file"
        )
    left = _differences_from(state, recipes[name])
    if left.count:
        return f"Its network is that of recipe '{name}', but not whole ({left}); save or fetch the checkpoint again"
    return f"It fits recipe '{name}'; use that one"


def _differences_from(state: Mapping[str, Tensor], recipe: Recipe) -> Differences:
    """From the network of another recipe, which is built without memory for its weights."""
    import torch

    with torch.device("meta"):
        target = dict(network_from_recipe(recipe).state_dict())
    return compared(state, recipe, target)[1]


def _listed(keys: Sequence[str]) -> str:
    rest = f", and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return ", ".join(keys[:SHOWN]) + rest


def _dims(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
