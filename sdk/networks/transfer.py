"""Starting a network from weights of another joint set: the trunk stays, what belongs to one joint goes by its name.

What no joint owns (trunk, deconvolutions, attention, classifiers) must fit as it is. What each joint has of its own,
its maps or its token, is taken from the joint of the same name; one that the checkpoint does not know starts anew.

    start = start_from(network, recipe, Path("rtmpose-m.pth"))
    start.carried, start.anew                             # ('nose', ...), ('left_big_toe', ...)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sdk.errors import CheckpointError
from sdk.joints import match_joints
from sdk.networks.checkpoints import check_finite, compared, mismatch
from sdk.networks.fitting import found_in_shapes, recipes_that_fit
from sdk.networks.reader import Checkpoint, checkpoint_from_file
from sdk.recipe import Recipe, catalogue
from sdk.recipe_networks import MarginalHead

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Start", "start_from"]

TOKENS, MAPS = "backbone.keypoint_token", "head.final"  # what joints own: along the second axis, and the first
Places = tuple[int | None, ...]  # for each of the recipe's joints, its place in the checkpoint


@dataclass(frozen=True)
class Start:
    """What a network starts from. `named`: whether it is known which joints the checkpoint has."""

    shared: int  # tensors that no joint owns
    carried: tuple[str, ...]
    anew: tuple[str, ...]
    named: bool

    def __str__(self) -> str:
        whole = f"{self.shared} tensors that joints share are kept"
        if self.named:
            total = len(self.carried) + len(self.anew)
            fresh = f"; anew: {', '.join(self.anew)}" if self.anew else ""
            return f"{whole}, {len(self.carried)} of {total} joints carried over by name{fresh}"
        if self.anew:
            return f"{whole}; which joints the checkpoint has is not known, so all {len(self.anew)} start anew"
        return f"{whole}; which joints the checkpoint has is not known: they are taken to be the recipe's, in its order"


def start_from(network: nn.Module, recipe: Recipe, path: Path) -> Start:
    """Fill `network`, built from `recipe`, with what of the checkpoint fits; CheckpointError leaves it as it was."""
    checkpoint = checkpoint_from_file(path)
    state, target = checkpoint.state, dict(network.state_dict())
    names, differences = compared(state, recipe, target)
    owned = [name for name in names if name in target and _is_owned(name, target[name])]
    count, joints = _joint_count(state, names, owned, target, recipe), _joints_of(checkpoint, recipe)
    named = joints is not None and len(joints) == count
    may_resize = named or (joints is None and count and _has_such_a_head(state, recipe))
    resized = {names[n] for n in owned if may_resize and _fits(state[names[n]], target[n], n, recipe, count)}
    rest = differences.without(resized)
    if rest.count:
        raise CheckpointError(mismatch(path, recipe, state, rest))
    check_finite(path, state)
    places = _places(joints if named else None, recipe.skeleton.joints, count)
    for name, key in names.items():
        if name in owned:
            _carry(target[name], state[key], name, recipe, count, places)
        else:
            target[name].copy_(state[key])
    mine = tuple(zip(recipe.skeleton.joints, places, strict=True))
    return Start(
        len(names) - len(owned),
        tuple(joint for joint, place in mine if place is not None),
        tuple(joint for joint, place in mine if place is None),
        named,
    )


def _is_owned(name: str, tensor: Tensor) -> bool:
    return name == TOKENS or (name.startswith(MAPS) and tensor.ndim > 0)


def _axis(name: str) -> int:
    return 1 if name == TOKENS else 0


def _joint_count(
    state: dict[str, Tensor], names: dict[str, str], owned: list[str], target: dict[str, Tensor], recipe: Recipe
) -> int:
    """How many joints the checkpoint has, by the first thing that joints own; 0 where that is no whole number."""
    for name in owned:
        theirs, ours = state[names[name]], target[name]
        if theirs.ndim == ours.ndim:
            count = theirs.shape[_axis(name)] * recipe.joints / ours.shape[_axis(name)]
            return int(count) if count == int(count) else 0
    return recipe.joints  # a head of linear layers alone owns nothing by joint


def _fits(theirs: Tensor, ours: Tensor, name: str, recipe: Recipe, count: int) -> bool:
    """Whether the two differ in the number of joints alone."""
    axis, wanted = _axis(name), list(ours.shape)
    wanted[axis] = wanted[axis] * count // recipe.joints
    return list(theirs.shape) == wanted


def _has_such_a_head(state: Mapping[str, Tensor], recipe: Recipe) -> bool:
    """Whether the head is of the recipe's kind: of another one, rows that fit in number would be no joints."""
    found = found_in_shapes({key: tuple(tensor.shape) for key, tensor in state.items()})
    return found is not None and found.network.head.kind == recipe.design.head.kind


def _joints_of(checkpoint: Checkpoint, recipe: Recipe) -> tuple[str, ...] | None:
    """The checkpoint's joints: as it says itself, as its recipe has them, or as every recipe has that it fits."""
    if checkpoint.joints is not None:
        return checkpoint.joints
    if checkpoint.recipe == recipe.name:
        return recipe.skeleton.joints
    recipes = catalogue()
    if checkpoint.recipe is not None:
        return recipes[checkpoint.recipe].skeleton.joints if checkpoint.recipe in recipes else None
    found = found_in_shapes({key: tuple(tensor.shape) for key, tensor in checkpoint.state.items()})
    fitting = () if found is None else recipes_that_fit(found, recipes)
    sets = {recipes[name].skeleton.joints for name in fitting}
    return sets.pop() if len(sets) == 1 else None


def _places(theirs: tuple[str, ...] | None, ours: tuple[str, ...], count: int) -> Places:
    if theirs is not None:
        return match_joints(theirs, ours).places
    return tuple(range(count)) if count == len(ours) else (None,) * len(ours)


def _carry(ours: Tensor, theirs: Tensor, name: str, recipe: Recipe, count: int, places: Places) -> None:
    """Copy what the joints at `places` own; the rest stays as it was made."""
    sides = 2 if isinstance(recipe.design.head, MarginalHead) else 1  # its maps: all joints along x, then along y
    source = theirs.reshape(sides, count, -1)
    with_joints = ours.reshape(sides, recipe.joints, -1).clone()
    for joint, place in enumerate(places):
        if place is not None:
            with_joints[:, joint] = source[:, place]
    ours.copy_(with_joints.reshape(ours.shape))
