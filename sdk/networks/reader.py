"""The tensors of a checkpoint file, by key. No network here (`checkpoints`); no code of the file ever runs.

Reads safetensors and both of torch's formats, the latter with `torch.load(weights_only=True)` alone. Foreign objects
that training frameworks leave beside the weights (numpy arrays, mmengine's log buffers) are read as inert stand-ins
and dropped; any other class or function in the file is refused.

    checkpoint = checkpoint_from_file(Path("rtmpose-s.pth"))
    checkpoint.state                                      # {'backbone.stem.0.conv.weight': tensor, ...}
    checkpoint.joints                                     # ('nose', 'left_eye', ...), or None: the file does not say
"""

from __future__ import annotations

import json
import pickle
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdk.errors import CheckpointError, MissingDependencyError
from sdk.networks.build import check_torch
from sdk.reading import json_from_text, kind_of

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Checkpoint", "checkpoint_from_file", "notes_of_weights"]

# Where training code keeps the weights, the best first. In mmengine's files `state_dict` already is the average.
WRAPPERS = (
    "state_dict_ema",
    "model_ema",
    "state_dict",
    "model",
    "model_state_dict",
    "ema_state_dict",
    "ema",
    "network",
)
# What torch's reader raises for a damaged file, found by damaging files.
DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
)
FREE_BYTES, PACKED = 64 << 20, 20  # a zip may unpack to 64 MiB and 20 times its size
PREFIXES = ("module.", "_orig_mod.", "model.")
# Tensors that training code leaves among the weights and that no network has.
BOOKKEEPING = re.compile(r"steps|n_averaged|ema_.*|data_preprocessor\..*")

# Names in files of OpenMMLab and of others that stand for data beside the weights. None of them is ever called: each
# is read as an object that takes everything and does nothing.
INERT = (
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    "numpy.ndarray",
    "numpy.dtype",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "builtins.getattr",  # as which methods are pickled, in HistoryBuffer
    "__builtin__.getattr",
    "pathlib.PosixPath",
)


class _Inert:
    """Takes the place of a foreign object: keeps nothing, does nothing."""

    def __new__(cls, *_arguments: object, **_named: object) -> _Inert:
        return object.__new__(cls)

    def __init__(self, *_arguments: object, **_named: object) -> None: ...

    def __setstate__(self, _state: object) -> None: ...


@dataclass(frozen=True)
class Checkpoint:
    """The network's tensors by key: unwrapped, without a common prefix, without what belongs to training only.

    `joints` and `recipe` are None where the file does not say. `trained_here`: `sdk train` wrote it.
    """

    state: dict[str, Tensor]
    joints: tuple[str, ...] | None = None
    recipe: str | None = None
    trained_here: bool = False


def checkpoint_from_file(path: Path) -> Checkpoint:
    """What the file at `path` holds; CheckpointError for one that is damaged or holds code."""
    check_torch()
    _check_file(path)
    if not _is_safetensors(path):
        content = _from_torch(path)
        return Checkpoint(_weights(content, path), _joints_of_mmengine(content))
    tensors, notes = _from_safetensors(path)
    return Checkpoint(_weights(tensors, path), _joints_of_notes(notes), notes.get("recipe"), "recipe" in notes)


def notes_of_weights(recipe: str, joints: tuple[str, ...]) -> dict[str, str]:
    """The notes that `sdk train` leaves in a file of weights, for `checkpoint_from_file` to read."""
    return {"recipe": recipe, "joints": json.dumps(joints)}


def _joints_of_notes(notes: Mapping[str, str]) -> tuple[str, ...] | None:
    try:
        return _texts(json_from_text(notes.get("joints", "null"), "joints", CheckpointError))
    except CheckpointError:
        return None


def _joints_of_mmengine(content: object) -> tuple[str, ...] | None:
    """`meta.dataset_meta.keypoint_id2name`, a table from place to name, as mmpose's files have it."""
    for key in ("meta", "dataset_meta", "keypoint_id2name"):
        content = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(content, Mapping) or set(content) != set(range(len(content))):
        return None
    return _texts([content[place] for place in range(len(content))])


def _texts(names: object) -> tuple[str, ...] | None:
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names)


def _check_file(path: Path) -> None:
    kind = kind_of(path, "checkpoint", CheckpointError)
    if kind == "folder":
        raise CheckpointError(f"checkpoint '{path}' is a folder; give the file inside it")
    if kind != "file":
        raise CheckpointError(f"checkpoint '{path}' does not exist; check the path")
    if path.stat().st_size == 0:
        raise CheckpointError(f"checkpoint '{path}' is empty; fetch it again")


def _is_safetensors(path: Path) -> bool:
    """By content: eight bytes of length, then a JSON object. By name too, so that a broken one is named as such."""
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise CheckpointError(f"checkpoint '{path}' cannot be read ({error.strerror}); check its rights") from error
    return path.suffix == ".safetensors" or (len(head) == 9 and head[8:] == b"{" and head[:2] != b"PK")


def _from_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Its tensors and its notes."""
    try:
        from safetensors import SafetensorError, safe_open
        from safetensors.torch import load_file
    except ImportError as error:
        raise MissingDependencyError(
            f"checkpoint '{path}' needs safetensors, which is not installed; pip install 'simcc-edge-sdk[build]'"
        ) from error
    try:
        with safe_open(path, framework="pt") as file:
            notes = dict(file.metadata() or {})
        return dict(load_file(path)), notes
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"checkpoint '{path}' is truncated or not safetensors ({error}); fetch it again"
        ) from error


def _from_torch(path: Path) -> object:
    import torch

    with torch.serialization.safe_globals([_stand_in(name) for name in INERT]):
        try:
            _check_unpacked(path)
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise CheckpointError(_refused(path, str(error))) from error
        except DAMAGE as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CheckpointError(
                f"checkpoint '{path}' is truncated or not a torch file ({reason}); fetch it again"
            ) from error


def _check_unpacked(path: Path) -> None:
    """torch packs nothing in its zips: what unpacks to much more than the file is no checkpoint."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > FREE_BYTES + PACKED * path.stat().st_size:
            raise CheckpointError(f"checkpoint '{path}' unpacks to {size} bytes, which no network does; fetch it again")


def _stand_in(full_name: str) -> type[_Inert]:
    module, _, name = full_name.rpartition(".")
    return type(name, (_Inert,), {"__module__": module, "__qualname__": name})


def _refused(path: Path, reason: str) -> str:
    """What the unpickler would not load, in one line."""
    found = re.search(r"(?:GLOBAL|unsupported GLOBAL|Unsupported (?:class|global)[:]?)\s+([\w.]+)", reason)
    if found is None:
        return f"checkpoint '{path}' is truncated or not a torch file; fetch it again"
    return (
        f"checkpoint '{path}' holds '{found.group(1)}', which is code, not weights: it was not run; "
        "save its state_dict alone, or as safetensors, where you trust the file"
    )


def _weights(content: object, path: Path) -> dict[str, Tensor]:
    import torch

    state = _unwrapped(content)
    tensors = {str(key): value for key, value in state.items() if isinstance(value, torch.Tensor)}
    tensors = {key: value for key, value in tensors.items() if not BOOKKEEPING.fullmatch(key)}
    if not tensors:
        kind = f"keys {', '.join(map(str, list(state)[:10]))}" if state else type(content).__name__
        raise CheckpointError(
            f"checkpoint '{path}' holds no weights (got {kind}); give a state_dict, bare or under one of the keys "
            f"{', '.join(WRAPPERS)}"
        )
    return _without_prefix(tensors)


def _unwrapped(content: object) -> Mapping[Any, Any]:
    """The mapping of keys to tensors inside `content`; empty if there is none."""
    if not isinstance(content, Mapping):
        return {}
    for name in WRAPPERS:
        inner = content.get(name)
        if isinstance(inner, Mapping) and inner:
            return _unwrapped(inner)
    return content


def _without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        if all(key.startswith(prefix) for key in tensors):
            return _without_prefix({key[len(prefix) :]: value for key, value in tensors.items()})
    return tensors
