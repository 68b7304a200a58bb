"""Checkpoints: every way they are wrapped, every way they are broken, and that none of them runs code."""

import collections
import pathlib
import pickle
import re
import struct
import sys
import types

import numpy as np
import pytest

from sdk.errors import CheckpointError
from sdk.networks import load_checkpoint, network_from_recipe, random_weights
from sdk.networks.reader import checkpoint_from_file
from sdk.recipe import recipe_by_name
from sdk.recipe_networks import CSPNeXt, GauHead, LinearSimccHead, ResNet
from tests.support.networks import recipe_of

pytestmark = pytest.mark.torch

RECIPE = recipe_of(CSPNeXt("cspnext", 0.167, 0.375), GauHead("gau", 7, 256, 128, 2), (64, 64), layout="mmpose")
MMPOSE_NAMES = {  # ours -> theirs, of the head; the backbone's are the same
    "head.final.": "head.final_layer.",
    "head.norm.": "head.mlp.0.",
    "head.reduce.": "head.mlp.1.",
    "head.classify_x.": "head.cls_x.",
    "head.classify_y.": "head.cls_y.",
}


def theirs(key):
    for ours, name in MMPOSE_NAMES.items():
        key = key.replace(ours, name)
    return key


@pytest.fixture(scope="module")
def trained():
    """A network with weights, and its state by mmpose's names."""
    network = network_from_recipe(RECIPE)
    random_weights(network, 3)
    return {theirs(key): tensor.clone() for key, tensor in network.state_dict().items()}


def other(state):
    """The same keys with other values: weights that must not be the ones loaded."""
    return {key: tensor + 1 for key, tensor in state.items()}


def prefixed(state, prefix):
    return {f"{prefix}{key}": tensor for key, tensor in state.items()}


def averaged(state):
    """As torch's AveragedModel and mmengine's EMA hook name it."""
    import torch

    return {"steps": torch.tensor(7), **prefixed(state, "module.")}


WRAPPINGS = {
    "bare": lambda s: s,
    "ordered": collections.OrderedDict,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3, "best_acc": 0.5},
    "model": lambda s: {"model": s},
    "SimCC's training state": lambda s: {
        "epoch": 210,
        "model": "pose_hrnet",
        "state_dict": prefixed(s, "module."),
        "best_state_dict": other(s),
        "optimizer": {"state": {}, "param_groups": []},
    },
    "module prefix": lambda s: prefixed(s, "module."),
    "module prefix within state_dict": lambda s: {"state_dict": prefixed(s, "module.")},
    "compiled, of several GPUs": lambda s: {"model": prefixed(s, "module._orig_mod.")},
    "lightning": lambda s: {"state_dict": prefixed(s, "model."), "pytorch-lightning_version": "2.4.0"},
    "ema only": lambda s: {"ema_state_dict": averaged(s)},
    "mmengine, state_dict is the average": lambda s: {"state_dict": s, "ema_state_dict": averaged(other(s))},
    "timm, the average beside it": lambda s: {"state_dict": other(s), "state_dict_ema": s},
    "mmcv, averages among the weights": lambda s: s | {f"ema_{k.replace('.', '_')}": v + 1 for k, v in s.items()},
    "preprocessor's buffers": lambda s: {"state_dict": s | {"data_preprocessor.mean": next(iter(s.values()))}},
    "no counters, as torch 0.4": lambda s: {k: v for k, v in s.items() if not k.endswith("num_batches_tracked")},
}


def weights_of(network):
    return {theirs(key): t for key, t in network.state_dict().items() if not key.endswith("num_batches_tracked")}


def assert_holds(network, state):
    import torch

    for key, tensor in weights_of(network).items():
        assert torch.equal(tensor, state[key]), key


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_every_wrapping_is_read(wrapping, form, trained, tmp_path):
    import torch

    path = tmp_path / "a.pth"
    torch.save(WRAPPINGS[wrapping](trained), path, _use_new_zipfile_serialization=form == "zip")
    network = network_from_recipe(RECIPE)
    load_checkpoint(network, RECIPE, path)
    assert_holds(network, trained)


@pytest.mark.parametrize("name", ["a.safetensors", "a.bin"])
def test_safetensors_by_name_and_by_content(name, trained, tmp_path):
    from safetensors.torch import save_file

    save_file(trained, tmp_path / name)
    network = network_from_recipe(RECIPE)
    load_checkpoint(network, RECIPE, tmp_path / name)
    assert_holds(network, trained)


def test_our_own_names_are_read_whatever_the_layout(trained, tmp_path):
    import torch

    source, target = network_from_recipe(RECIPE), network_from_recipe(RECIPE)
    random_weights(source, 4)
    torch.save({"model": source.state_dict()}, tmp_path / "a.pth")
    load_checkpoint(target, RECIPE, tmp_path / "a.pth")
    assert_holds(target, {theirs(k): t for k, t in source.state_dict().items()})


def test_optimiser_state_is_ignored_and_halves_are_widened(trained, tmp_path):
    import torch

    network = network_from_recipe(RECIPE)
    optimiser = torch.optim.AdamW(network.parameters())
    sum(p.square().sum() for p in network.parameters()).backward()
    optimiser.step()
    halves = {key: t.half() if t.is_floating_point() else t for key, t in trained.items()}
    torch.save({"optimizer": optimiser.state_dict(), "state_dict": halves}, tmp_path / "a.pth")
    load_checkpoint(network, RECIPE, tmp_path / "a.pth")
    assert_holds(network, {key: t.float() for key, t in halves.items()})


# ---- files as OpenMMLab's training leaves them: numpy arrays and mmengine's log buffers beside the weights


@pytest.fixture
def mmengine(monkeypatch):
    """A stand-in for mmengine's log buffer, with the way it is pickled: its methods by name, its arrays by numpy."""
    module = types.ModuleType("mmengine.logging.history_buffer")

    class HistoryBuffer:
        def __init__(self, values):
            self._log_history = np.asarray(values, np.float64)
            self._count_history = np.ones(len(values), np.int64)
            self.statistics_methods = {"mean": HistoryBuffer.mean}

        def mean(self):
            return self._log_history.mean()

        def __setstate__(self, state):
            raise AssertionError("the file's class was run")

    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = module.__name__, "HistoryBuffer"
    HistoryBuffer.mean.__qualname__ = "HistoryBuffer.mean"
    HistoryBuffer.mean.__module__ = module.__name__
    module.HistoryBuffer = HistoryBuffer
    for name in ("mmengine", "mmengine.logging"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return HistoryBuffer


def test_files_of_mmengine_are_read_without_mmengine(trained, tmp_path, mmengine, monkeypatch):
    import torch

    meta = {"dataset_meta": {"sigmas": np.full(17, 0.1, np.float32), "num_keypoints": 17}, "iter": np.float64(3.0)}
    hub = {"log_scalars": collections.OrderedDict(loss=mmengine([1.0, 2.0])), "resumed_keys": {}}
    path = tmp_path / "a.pth"
    torch.save(
        {"meta": meta, "state_dict": trained, "message_hub": hub, "ema_state_dict": averaged(other(trained))}, path
    )
    for name in [name for name in sys.modules if name.startswith("mmengine")]:
        monkeypatch.delitem(sys.modules, name)
    network = network_from_recipe(RECIPE)
    load_checkpoint(network, RECIPE, path)
    assert_holds(network, trained)
    assert "mmengine" not in sys.modules


def test_other_data_beside_the_weights_is_dropped(trained, tmp_path):
    import torch

    beside = {"folder": pathlib.Path("runs") / "1", "best": np.float32(0.5), "seen": np.arange(3), "size": (64, 64)}
    torch.save({"state_dict": trained, **beside}, tmp_path / "a.pth")
    assert set(checkpoint_from_file(tmp_path / "a.pth").state) == set(trained)


def test_stand_ins_are_allowed_only_while_reading(trained, tmp_path):
    import torch

    torch.save({"state_dict": trained, "meta": np.zeros(3)}, tmp_path / "a.pth")
    before = set(torch.serialization.get_safe_globals())
    checkpoint_from_file(tmp_path / "a.pth")
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "a.pth", weights_only=True)


# ---- files that must not be loaded


class Malicious:
    """Runs a function of the attacker's choice when unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


RAN = []


def run_by_pickle(*arguments):
    RAN.append(arguments)


ATTACKS = {
    "a function of ours": lambda: Malicious(run_by_pickle, 1),
    "eval": lambda: Malicious(eval, "__import__('test_checkpoints').RAN.append(1)"),
    "os.system": lambda: Malicious(__import__("os").system, "touch ran-by-pickle"),
    "subprocess": lambda: Malicious(__import__("subprocess").check_output, ["touch", "ran-by-pickle"]),
    "getattr of a class of ours": lambda: Malicious(getattr, Malicious, "__reduce__"),
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("form", ["zip", "legacy", "plain pickle"])
@pytest.mark.parametrize("place", ["beside the weights", "instead of the weights"])
def test_code_in_a_file_is_never_run(attack, form, place, trained, tmp_path, monkeypatch):
    import torch

    monkeypatch.chdir(tmp_path)
    RAN.clear()
    evil = ATTACKS[attack]()
    content = {"state_dict": trained, "extra": evil} if place == "beside the weights" else evil
    path = tmp_path / "a.pth"
    if form == "plain pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    network = network_from_recipe(RECIPE)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"which is code, not weights: it was not run|holds no weights"):
        load_checkpoint(network, RECIPE, path)
    assert not RAN
    assert not (tmp_path / "ran-by-pickle").exists()
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


def _saved(tmp_path, content, **options):
    import torch

    path = tmp_path / "a.pth"
    torch.save(content, path, **options)
    return path


def _cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def _missing(tmp_path, trained):
    return tmp_path / "nowhere.pth"


def _empty(tmp_path, trained):
    (tmp_path / "a.pth").write_bytes(b"")
    return tmp_path / "a.pth"


def _text(tmp_path, trained):
    (tmp_path / "a.pth").write_text("<html>404 Not Found</html>")
    return tmp_path / "a.pth"


def _git_pointer(tmp_path, trained):
    (tmp_path / "a.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")
    return tmp_path / "a.pth"


def _half_safetensors(tmp_path, trained):
    from safetensors.torch import save_file

    save_file(trained, tmp_path / "a.safetensors")
    return _cut(tmp_path / "a.safetensors", 0.5)


def _lying_safetensors(tmp_path, trained):
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    return tmp_path / "a.safetensors"


def _not_finite(tmp_path, trained):
    import torch

    state = dict(trained)
    state["head.mlp.1.weight"] = torch.full_like(state["head.mlp.1.weight"], float("nan"))
    return _saved(tmp_path, state)


BROKEN = {
    "missing": (_missing, r"does not exist; check the path"),
    "a folder": (lambda p, s: p, r"is a folder; give the file inside it"),
    "empty": (_empty, r"is empty; fetch it again"),
    "text": (_text, r"is truncated or not a torch file.*; fetch it again"),
    "pointer of git-lfs": (_git_pointer, r"is truncated or not a torch file.*; fetch it again"),
    "half of a zip": (lambda p, s: _cut(_saved(p, s), 0.5), r"is truncated or not a torch file.*; fetch it again"),
    "nearly a zip": (lambda p, s: _cut(_saved(p, s), 0.999), r"is truncated or not a torch file.*; fetch it again"),
    "half of a legacy file": (
        lambda p, s: _cut(_saved(p, s, _use_new_zipfile_serialization=False), 0.5),
        r"is truncated or not a torch file.*; fetch it again",
    ),
    "half of safetensors": (_half_safetensors, r"is truncated or not safetensors.*; fetch it again"),
    "safetensors with a lying header": (_lying_safetensors, r"is truncated or not safetensors.*; fetch it again"),
    "no tensors": (lambda p, s: _saved(p, {"epoch": 3}), r"holds no weights \(got keys epoch\); give a state_dict"),
    "a list": (lambda p, s: _saved(p, [1, 2]), r"holds no weights \(got list\); give a state_dict"),
    "a tensor": (lambda p, s: _saved(p, s["head.cls_x.weight"]), r"holds no weights \(got Tensor\)"),
    "NaN": (_not_finite, r"weights must be finite numbers, 'head.mlp.1.weight' is not"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_named_and_change_nothing(case, trained, tmp_path):
    import torch

    make, message = BROKEN[case]
    path = make(tmp_path, trained)
    network = network_from_recipe(RECIPE)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(network, RECIPE, path)
    assert str(path) in str(caught.value)
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_damaged_files_are_read_or_refused(form, tmp_path):
    """Bytes are changed and files cut at random: there is an answer or a CheckpointError, and never another error."""
    import torch
    from safetensors.torch import save_file

    state = {f"layer.{index}.weight": torch.full((3, 2), 0.5) for index in range(4)}
    path = tmp_path / ("a.safetensors" if form == "safetensors" else "a.pth")
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3}, path, _use_new_zipfile_serialization=form == "zip")
    whole, rng, refused = path.read_bytes(), np.random.default_rng(6), 0
    for _ in range(120):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), rng.integers(1, 12)):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged[: rng.integers(0, len(whole))] if rng.random() < 0.2 else damaged)
        try:
            checkpoint_from_file(path)
        except CheckpointError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 40


# ---- files that do not fit


def refusal(state, recipe, tmp_path):
    import torch

    path = tmp_path / "a.pth"
    torch.save(state, path)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(network_from_recipe(recipe), recipe, path)
    return str(caught.value)


def test_a_mismatch_lists_keys_of_each_kind(trained, tmp_path):
    state = dict(trained)
    state["head.extra.weight"] = state.pop("head.mlp.1.weight")
    state["head.cls_x.weight"] = state["head.cls_x.weight"][:100]
    message = refusal(state, RECIPE, tmp_path)
    assert "does not fit recipe 'any-64x64'" in message
    assert "1 key missing, by our names: head.reduce.weight" in message
    assert "1 key unexpected: head.extra.weight" in message
    assert "1 key of another shape: head.cls_x.weight (file 100x256, network 128x256)" in message


def test_a_mismatch_shows_ten_keys_and_counts_the_rest(trained, tmp_path):
    kept = {key: tensor for key, tensor in trained.items() if not key.startswith("backbone.stage3")}
    message = refusal(kept, RECIPE, tmp_path)
    listed = re.search(r"(\d+) keys missing, by our names: (.*), and (\d+) more", message)
    total, names, rest = int(listed[1]), listed[2].split(", "), int(listed[3])
    assert len(names) == 10
    assert total == 10 + rest
    lost = [k for k in trained if k.startswith("backbone.stage3") and not k.endswith("num_batches_tracked")]
    assert total == len(lost)


def test_a_mismatch_names_the_recipe_that_fits(tmp_path):
    small, large = recipe_by_name("rtmpose-t-256x192"), recipe_by_name("rtmpose-s-256x192")
    network = network_from_recipe(small)
    state = {theirs(key): tensor for key, tensor in network.state_dict().items()}
    assert "It fits recipe 'rtmpose-t-256x192'; use that one" in refusal(state, large, tmp_path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: {k: v for k, v in s.items() if "gau.o." not in k}, "1 key missing, by our names: head.gau.o.weight"),
        (lambda s: s | {"head.more": s["head.mlp.1.weight"]}, "1 key unexpected: head.more"),
    ],
    ids=["a key short", "a key over"],
)  # fmt: skip
@pytest.mark.parametrize("asked", ["rtmpose-t-256x192", "rtmpose-s-256x192"], ids=["itself", "another"])
def test_a_checkpoint_that_is_not_whole_is_not_said_to_fit(change, told, asked, tmp_path):
    state = {theirs(key): t for key, t in network_from_recipe(recipe_by_name("rtmpose-t-256x192")).state_dict().items()}
    message = refusal(change(state), recipe_by_name(asked), tmp_path)
    assert f"Its network is that of recipe 'rtmpose-t-256x192', but not whole ({told}); save or fetch" in message
    assert "It fits" not in message


def test_a_mismatch_describes_a_network_that_no_recipe_has(tmp_path):
    odd = recipe_of(ResNet("resnet", 18), LinearSimccHead("simcc", (), 2), (64, 96), joints=14)
    state = network_from_recipe(odd).state_dict()
    message = refusal(state, recipe_by_name("simba-r50-upfree-64x64"), tmp_path)
    assert "It holds resnet (depth 18), head simcc, 14 joints, 192 x 128 bins, input 64x96" in message
    assert re.search(r"the nearest recipe is '\S+', which differs in backbone, .*: write a recipe file", message)


def test_a_mismatch_of_unknown_keys_says_so(tmp_path):
    import torch

    message = refusal({"fc.weight": torch.zeros(3, 3)}, RECIPE, tmp_path)
    assert "Its keys are of no network the SDK has; check that it is the checkpoint you mean" in message
