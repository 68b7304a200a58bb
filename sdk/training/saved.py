"""What a resumed run needs, in one file: who the run is, its parts' states, its counts, and torch's random state.

write_state(Path("runs/mine/last.pt"), identity, {"network": network}, {"epoch": 3})
values = read_state(path, identity, {"network": network}, device)            # {'epoch': 3}; the parts are as they were
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdk.errors import TrainingError
from sdk.files import write_bytes

__all__ = ["differences", "read_state", "write_state"]


def write_state(path: Path, identity: Mapping[str, Any], parts: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Write it whole or not at all."""
    import torch

    states = {name: part.state_dict() for name, part in parts.items()}
    content = io.BytesIO()
    torch.save({"run": dict(identity), **states, **values, "random": torch.get_rng_state()}, content)
    write_bytes(path, content.getvalue())


def read_state(path: Path, identity: Mapping[str, Any], parts: Mapping[str, Any], device: Any) -> dict[str, Any]:
    """Put the parts into their states; the rest of the file. TrainingError where it is another run's."""
    import torch

    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    different = differences(state.pop("run"), identity)
    if different:
        raise TrainingError(
            f"'{path}' was made otherwise ({', '.join(different)}); resume with the same recipe, settings, persons, "
            "teacher and number of processes, or choose another folder"
        )
    torch.set_rng_state(state.pop("random").cpu())
    for name, part in parts.items():
        part.load_state_dict(state.pop(name))
    return state


def differences(theirs: Any, ours: Any, name: str = "") -> list[str]:
    """Where two tables differ: 'settings.epochs 3, now 9'."""
    if not (isinstance(theirs, Mapping) and isinstance(ours, Mapping)):
        return [] if theirs == ours else [f"{name} {theirs}, now {ours}"]
    keys = dict.fromkeys([*theirs, *ours])
    pairs = [(f"{name}.{key}" if name else key, theirs.get(key), ours.get(key)) for key in keys]
    return [words for inner, one, other in pairs for words in differences(one, other, inner)]
