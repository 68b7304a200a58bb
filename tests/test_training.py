"""The trainer on rendered figures: it learns, resumes exactly after a kill, runs as two, refuses misuse."""

import csv
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sdk.errors import CheckpointError, DeviceError, MissingDependencyError, OutputError, TrainingError

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytest.importorskip("matplotlib")
pytest.importorskip("pycocotools")

from safetensors.torch import load_file  # noqa: E402

from sdk.locks import held_folder  # noqa: E402
from sdk.recipe import recipe_by_name  # noqa: E402
from sdk.training.augment import Augmentation  # noqa: E402
from sdk.training.codecs import Smoothing, soft_labels, targets_from_keypoints  # noqa: E402
from sdk.training.dataset import PersonDataset, batch_loader, epoch_batches  # noqa: E402
from sdk.training.files import write_curves  # noqa: E402
from sdk.training.label_files import LabelFile  # noqa: E402
from sdk.training.losses import heatmap_loss, heatmap_targets, label_loss, simcc_loss  # noqa: E402
from sdk.training.resident import ResidentPictures, why_not_resident  # noqa: E402
from sdk.training.saved import differences  # noqa: E402
from sdk.training.schedule import Schedule  # noqa: E402
from sdk.training.settings import Settings, Stage  # noqa: E402
from sdk.training.trainer import Trainer, _optimiser  # noqa: E402
from tests.support.training import tiny_recipe, write_data  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
RTMPOSE = recipe_by_name("rtmpose-t-256x192")
SETTINGS = Settings(epochs=3, batch=4, warmup=0.17, workers=0, validate_every=2, cache_gib=0.01)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    return folder, write_data(folder, 17), write_data(folder, 6, seed=1)


def trainer(data, output, settings=SETTINGS, recipe=None, **options):
    recipe = recipe or tiny_recipe()
    folder, train, val = data
    sets = [PersonDataset([LabelFile(path, folder)], recipe, seed=settings.seed) for path in (train, val)]
    return Trainer(recipe, settings, *sets, output, **options)


def log_of(output):
    with (output / "log.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def weights_of(output):
    return torch.load(output / "last.pt", weights_only=True)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "whole"
    trainer(data, output).fit()
    return output


def test_a_run_leaves_its_files(finished):
    assert sorted(path.name for path in finished.iterdir()) == ["best.safetensors", "curves.png", "last.pt", "log.csv"]
    assert len({path.stat().st_mode for path in finished.iterdir()}) == 1  # as the umask has it, every one
    rows = log_of(finished)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [row["step"] for row in rows] == ["4", "8", "12"]
    assert [bool(row["pck_0.2"]) for row in rows] == [False, True, True]


def test_the_same_seed_is_the_same_run(data, finished, tmp_path):
    trainer(data, tmp_path / "again").fit()
    assert same(weights_of(finished)["network"], weights_of(tmp_path / "again")["network"])
    trainer(data, tmp_path / "other", Settings(**{**vars(SETTINGS), "seed": 1})).fit()
    assert not same(weights_of(finished)["network"], weights_of(tmp_path / "other")["network"])


KILLED = """
import os, signal, sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[1])
torch.set_num_threads(1)
import test_training as t
run = t.trainer((Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])), Path(sys.argv[5]))
step = run._step
def dying_step(*values):
    if run.step == 10:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(*values)
run._step = dying_step
run.fit()
"""


def test_a_killed_run_resumes_exactly(data, finished, tmp_path):
    output = tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, str(ROOT / "tests"), *map(str, data), str(output)]
    died = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert died.returncode == -signal.SIGKILL
    assert weights_of(output)["epoch"] == 2
    run = trainer(data, output, resume=True)
    run.fit()
    for part in ("network", "average"):
        assert same(weights_of(finished)[part], weights_of(output)[part])
    assert log_of(output) == log_of(finished)
    assert same(load_file(output / "best.safetensors"), load_file(finished / "best.safetensors"))


def test_a_second_run_in_one_folder_is_refused_while_the_first_one_writes(data, tmp_path):
    run = trainer(data, tmp_path / "run")
    with held_folder(tmp_path / "run"), pytest.raises(OutputError, match=r"run' is being written by another run"):
        run.fit()
    assert [path.name for path in (tmp_path / "run").iterdir()] == []


DIFFERENCES = {  # another run's identity -> what is told
    "settings": ({"settings": {"epochs": 3, "smoothing": {"width": 2.0}}}, ["settings.smoothing.width 2.0, now 3.0"]),
    "left out": ({"settings": {"epochs": 3, "smoothing": {"width": 3.0}, "seed": 1}}, ["settings.seed 1, now None"]),
    "persons": ({"persons": 9}, ["persons 9, now 17"]),
    "none": ({}, []),
}


@pytest.mark.parametrize(("change", "told"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_what_differs_between_runs_is_named(change, told):
    ours = {"settings": {"epochs": 3, "smoothing": {"width": 3.0}}, "persons": 17}
    assert differences({**ours, **change}, ours) == told


@contextmanager
def a_disk_that_takes(count):
    """No file may grow above `count` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", ["last.pt", "best.safetensors"])
def test_a_full_disk_is_told_and_leaves_the_old_file(data, tmp_path, name):
    run, path = trainer(data, tmp_path / "full"), tmp_path / "full" / name
    write = run._checkpoint if name == "last.pt" else lambda: run._save_weights(path)
    write()
    before = path.read_bytes()
    with a_disk_that_takes(4096), pytest.raises(OutputError, match=rf"{name}' cannot be written \(File too large\)"):
        write()
    assert [p.name for p in path.parent.iterdir()] == [name] and path.read_bytes() == before


@pytest.mark.parametrize("epochs", [1, 2, 5])
def test_curves_have_whole_epochs_and_a_legend_above(tmp_path, monkeypatch, epochs):
    drawn = []
    monkeypatch.setattr(
        "matplotlib.figure.Figure.savefig", lambda figure, path, **_: (drawn.append(figure), path.touch())
    )
    write_curves(tmp_path / "c.png", [{"epoch": n + 1, "loss": 1.0, "pck_0.2": 5.0, "ap": 3.0} for n in range(epochs)])
    for axes in drawn[0].axes:
        low, high = axes.get_xlim()
        ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert ticks and all(tick == int(tick) for tick in ticks)
    drawn[0].canvas.draw()
    assert drawn[0].axes[1].get_legend().get_window_extent().y0 >= drawn[0].axes[1].get_window_extent().y1


def test_the_checkpoint_is_written_before_curves_are_drawn(data, finished, tmp_path, monkeypatch):
    def stopped(*_):
        raise OutputError("the disk is full")

    with monkeypatch.context() as full, pytest.raises(OutputError):
        full.setattr("sdk.training.trainer.write_curves", stopped)
        trainer(data, tmp_path / "run").fit()
    assert weights_of(tmp_path / "run")["epoch"] == 1
    (tmp_path / "run" / "log.csv").unlink()
    run = trainer(data, tmp_path / "run", resume=True)
    assert [row["epoch"] for row in log_of(tmp_path / "run")] == ["1"] and (tmp_path / "run" / "curves.png").exists()
    run.fit()
    assert same(weights_of(finished)["network"], weights_of(tmp_path / "run")["network"])


def test_packages_are_asked_for_before_anything_is_done(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"training needs matplotlib, .* pip install .*\[train\]"):
        trainer(data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_workers_change_nothing(data, finished, tmp_path):
    trainer(data, tmp_path / "workers", Settings(**{**vars(SETTINGS), "workers": 2})).fit()
    assert same(weights_of(finished)["network"], weights_of(tmp_path / "workers")["network"])


def test_it_learns(data, tmp_path):
    narrow = {"smoothing": Smoothing("gaussian", 1.0), "augmentation": Augmentation.none(), "learning_rate": 1e-2}
    settings = Settings(epochs=25, batch=8, warmup=0.1, workers=0, validate_every=25, **narrow)
    run = trainer(data, tmp_path / "learns", settings)
    run.fit()
    losses = [row["loss"] for row in run.rows]
    assert losses[-1] < 0.8 * losses[0]


def test_stages_and_heatmaps_train(data, tmp_path):
    staged = Settings(**{**vars(SETTINGS), "stages": (Stage(0.5, 32, 32),), "plain_epochs": 1, "figures": 0})
    run = trainer(data, tmp_path / "stages", staged, tiny_recipe(size=64))
    assert [run.schedule.size_hw(epoch) for epoch in range(3)] == [(32, 32), (32, 32), (64, 64)]
    assert run.fit()["step"] == 12
    heatmap = trainer(data, tmp_path / "heatmap", SETTINGS, tiny_recipe("heatmap"))
    assert 0 <= heatmap.fit()["pck_0.2"] <= 100


@pytest.fixture(scope="module")
def answers():
    """What a network of 14 joints and 64 bins gave for two crops of 32x32, and the labels."""
    draw = torch.Generator().manual_seed(0)
    outputs = (torch.randn(2, 14, 64, generator=draw), torch.randn(2, 14, 64, generator=draw))
    return outputs, torch.cat([32 * torch.rand(2, 14, 2, generator=draw), torch.full((2, 14, 1), 2.0)], dim=2)


def test_labels_are_as_narrow_as_the_stage_is_small(answers):
    outputs, keypoints = answers
    settings = replace(SETTINGS, smoothing=Smoothing("gaussian", 3.0))
    x, y, weights = targets_from_keypoints(keypoints, (64, 64), 2.0, Smoothing("gaussian", 1.5))
    found = label_loss(outputs, (keypoints, torch.ones(2, 14)), (32, 32), tiny_recipe(size=64), settings)
    assert torch.equal(found, simcc_loss(outputs, (x, y), weights))


def test_a_label_counts_as_much_as_its_weight_says(answers):
    outputs, keypoints = answers
    counts = torch.linspace(0, 1, 28).view(2, 14)
    x, y, inside = targets_from_keypoints(keypoints, (64, 64), 2.0, SETTINGS.smoothing)
    found = label_loss(outputs, (keypoints, counts), (32, 32), tiny_recipe(), SETTINGS)
    assert torch.allclose(found, simcc_loss(outputs, (x, y), counts * inside))
    unsure = label_loss(outputs, (keypoints, counts), (32, 32), tiny_recipe(), replace(SETTINGS, unsure=2.0))
    wide = Smoothing("gaussian", 3 * SETTINGS.smoothing.width)  # a label that counts nothing is 1 + 2 times as wide
    assert not torch.allclose(found, unsure)
    labels = soft_labels(keypoints[..., 0], 64, 2.0, SETTINGS.smoothing, 1 + 2.0 * (1 - counts))
    assert torch.allclose(labels[0, 0], soft_labels(keypoints[..., 0], 64, 2.0, wide)[0, 0])
    assert torch.allclose(labels[1, 13], x[1, 13])


def test_a_joint_that_is_off_the_crop_is_to_be_found_nowhere(answers):
    outputs, keypoints = answers
    keypoints = keypoints.clone()
    keypoints[:, 0, 0], keypoints[:, 1, 1], keypoints[:, 2, 0] = -9.0, 40.0, -0.5  # off to the left, below, at the edge
    keypoints[1, 0, 2] = 0  # not annotated: nobody knows where it is
    counts = torch.full((2, 14), 0.5)
    x, y, inside = targets_from_keypoints(keypoints, (64, 64), 2.0, SETTINGS.smoothing)
    off = torch.zeros(2, 14)
    off[0, 0] = off[:, 1] = 1
    flat = [torch.where(off[..., None] == 1, 1 / 64, axis) for axis in (x, y)]
    found = label_loss(outputs, (keypoints, counts), (32, 32), tiny_recipe(), replace(SETTINGS, absent=0.3))
    assert torch.allclose(found, simcc_loss(outputs, flat, 0.5 * inside + 0.3 * 0.5 * off))
    same = label_loss(outputs, (keypoints, counts), (32, 32), tiny_recipe(), SETTINGS)
    assert torch.allclose(same, simcc_loss(outputs, (x, y), 0.5 * inside))


def test_of_a_joint_off_the_crop_a_heatmap_is_to_hold_nothing():
    """One that lies so near that its Gaussian would reach the crop's edge too."""
    recipe = tiny_recipe("heatmap")
    keypoints, counts = torch.full((2, 14, 3), 16.0), torch.full((2, 14), 0.5)
    keypoints[:, 0, 0] = -2.0
    maps = torch.randn((2, 14, 8, 8), generator=torch.Generator().manual_seed(0))
    targets = heatmap_targets(keypoints, (8, 8), 4.0, 2.0)
    assert targets[:, 0].max() > 0.5
    targets[:, 0], weights = 0, counts.clone()
    weights[:, 0] *= 0.3
    found = label_loss(maps, (keypoints, counts), (32, 32), recipe, replace(SETTINGS, absent=0.3))
    assert torch.allclose(found, heatmap_loss(maps, targets, weights))


def test_two_batches_gathered_are_one_of_twice_the_size(data, tmp_path):
    """Without batch statistics: the gradient of a mean is the mean of gradients where each half counts alike."""
    plain = replace(SETTINGS, augmentation=Augmentation.none(), learning_rate=1e-3, epochs=1, batch=8)
    whole, parts = (
        trainer(data, tmp_path / name, settings)
        for name, settings in (("whole", plain), ("parts", replace(plain, batch=4, accumulate=2)))
    )
    for run in (whole, parts):
        run.module.eval()  # statistics as they are
    large, small = (list(run._batches(0, (32, 32))) for run in (whole, parts))
    assert whole._step(large[:1], (32, 32)) == pytest.approx(parts._step(small[:2], (32, 32)), rel=1e-4)
    for one, other in zip(whole.network.parameters(), parts.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_look_trains_in_every_precision(data, tmp_path, precision):
    every = Augmentation(colour=1, grey=0.5, blur=1, motion_blur=1, coarse=1, cut_out=1, close_up=0.5, turn=1)
    settings = replace(SETTINGS, augmentation=every, precision=precision, epochs=1, plain_epochs=0)
    assert np.isfinite(trainer(data, tmp_path / "run", settings).fit()["loss"])


def test_pictures_that_lie_on_the_device_give_the_same_crops(data):
    """On this CPU, what a GPU does: the same op, person by person."""
    folder, path, _ = data
    people = PersonDataset([LabelFile(path, folder)], tiny_recipe())
    cut, placed = (next(batch_loader(people, [[3, 0, 5]], 2, Augmentation(), 0, here=here)) for here in (True, False))
    assert not placed.crops.size and np.array_equal(cut.looks, placed.looks)
    resident = ResidentPictures(people, torch.device("cpu"))
    assert np.array_equal(resident.crops(placed.rows, placed.affines, (32, 32)).numpy(), cut.crops)
    assert why_not_resident(people, torch.device("cpu")) == "the CPU trains"


@pytest.mark.parametrize("epochs", [1, 3, 30, 400])
def test_every_run_reaches_its_learning_rate(epochs):
    """Warm-up is a share of the run."""
    schedule = Schedule(Settings(epochs=epochs, warmup=0.1, learning_rate=1.0), 4, (32, 32))
    rates = [schedule.rate(step) for step in range(schedule.steps)]
    assert len(rates) == 4 * epochs and max(rates) > 0.95
    warm = int(np.argmax(rates)) + 1
    assert warm <= max(1, len(rates) // 10) and rates[-1] < max(0.5, rates[0])
    assert (np.diff(rates[:warm]) > 0).all() and (np.diff(rates[warm:]) < 0).all()


def test_only_matrices_decay():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
    conv, norm, linear = network
    decayed, free = _optimiser(network, SETTINGS).param_groups
    assert decayed["weight_decay"] == SETTINGS.weight_decay > 0 == free["weight_decay"]
    assert [id(p) for p in decayed["params"]] == [id(conv.weight), id(linear.weight)]
    assert {id(p) for p in free["params"]} == {id(p) for p in (conv.bias, norm.weight, norm.bias, linear.bias)}


def test_fine_tuning_starts_from_the_weights(data, finished, tmp_path):
    run = trainer(data, tmp_path / "tuned", weights=finished / "best.safetensors")
    assert same(load_file(finished / "best.safetensors"), run.network.state_dict())
    with pytest.raises(CheckpointError, match="does not fit recipe"):
        trainer(data, tmp_path / "tuned", recipe=tiny_recipe("heatmap"), weights=finished / "best.safetensors")


def test_rendered_figures_join_the_persons(data):
    folder, train, _ = data
    dataset = PersonDataset([LabelFile(train, folder)], tiny_recipe(), figures=5)
    assert len(dataset) == 22
    crop, keypoints, weights, *_ = dataset.sample(21, 0, Augmentation.none())
    assert crop.shape == (3, 32, 32)
    assert (keypoints[:, 2] == 2).all() and (weights == 1).all()
    assert (keypoints[:, :2] > -1).all() and (keypoints[:, :2] < 33).all()


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_each_batch(world):
    order = np.random.default_rng(0).permutation(50)
    shares = [epoch_batches(order, 4, rank, world) for rank in range(world)]
    steps = 50 // (4 * world)
    assert [len(share) for share in shares] == [steps] * world
    joined = [index for step in zip(*shares, strict=True) for batch in step for index in batch]
    assert joined == order[: steps * 4 * world].tolist()


DDP = """
import sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[1])
torch.set_num_threads(1)
import test_training as t
run = t.trainer((Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])), Path(sys.argv[5]))
run.fit()
torch.save(run.network.state_dict(), Path(sys.argv[5]) / f"rank{run.processes.rank}.pt")
run.processes.leave()
"""


def test_two_processes_train_one_network(data, finished, tmp_path):
    script = tmp_path / "ddp.py"
    script.write_text(DDP)
    output = tmp_path / "ddp"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    arguments = [str(ROOT / "tests"), *map(str, data), str(output)]
    subprocess.run(
        [*command, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=True,
    )
    ranks = [torch.load(output / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    learned = {key for key in ranks[0] if "running" not in key}  # statistics are each process's own until the next step
    assert all(torch.equal(ranks[0][key], ranks[1][key]) for key in learned)
    assert [row["step"] for row in log_of(output)] == ["2", "4", "6"]
    assert not same(weights_of(output)["network"], weights_of(finished)["network"])
    with pytest.raises(TrainingError, match=r"made otherwise \(processes 2, now 1\)"):
        trainer(data, output, resume=True)


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda d, f, t: trainer(d, f), TrainingError, "already holds a run; resume it with --resume"),
        (lambda d, f, t: trainer(d, t, Settings(batch=64)), TrainingError, "do not fill one step of 64 x 1 x 1"),
        (
            lambda d, f, t: trainer(d, f, Settings(epochs=9), resume=True),
            TrainingError,
            "was made otherwise (settings.epochs 3, now 9",
        ),
        (lambda d, f, t: trainer(d, t, device="tpu"), DeviceError, "must be cpu, cuda or cuda:N (got 'tpu')"),
        (lambda d, f, t: trainer(d, t, weights=t / "no.safetensors"), CheckpointError, "no.safetensors"),
        (lambda d, f, t: Settings(epochs=0), TrainingError, "setting 'epochs' must be at least 1 (got 0)"),
        (lambda d, f, t: Settings(ema=1.0), TrainingError, "setting 'ema' must be at least 0 and below 1"),
        (
            lambda d, f, t: Trainer(RTMPOSE, Settings(stages=(Stage(0.5, 128, 96),)), None, None, t),
            TrainingError,
            "stages: head 'gau' of recipe 'rtmpose-t-256x192' learns a weight for each place of the crop, so every "
            "stage must have the recipe's size 256 x 192 (got 128 x 96)",
        ),
        (
            lambda d, f, t: trainer(d, t, Settings(stages=(Stage(0.5, 32, 48),))),
            TrainingError,
            "stages: height and width must be multiples of 32 (got 32 x 48)",
        ),
        (lambda d, f, t: Settings(stages=(Stage(2.0, 8, 8),)), TrainingError, "'until' must rise within 0..1"),
    ],
    ids=[
        "used-folder",
        "few-persons",
        "other-settings",
        "device",
        "weights",
        "epochs",
        "ema",
        "stage-of-gau",
        "stage-size",
        "stages",
    ],
)
def test_misuse_is_refused(data, finished, tmp_path, act, error, message):
    with pytest.raises(error) as raised:
        act(data, finished, tmp_path)
    assert message in str(raised.value)
