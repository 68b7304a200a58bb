"""The trainer: AdamW, warm-up and cosine, EMA, mixed precision, exact resume, one process or several.

`Trainer(...)` builds network, data and optimiser, or takes them up from `last.pt`; `fit` runs the epochs; `_step` is
one optimiser step; `_validate` measures the averaged network; `_checkpoint` writes what resuming needs. A sample
depends on (seed, epoch, person) alone and checkpoints lie between epochs, so a run that was killed and resumed ends in
the same numbers. It reads COCO-format data and recipes; it does not export a graph (`sdk.cli.train` does).

    trainer = Trainer(recipe, settings, train, val, Path("runs/mine"), device="cpu")
    trainer.fit()                                    # runs/mine: last.pt, best.safetensors, log.csv, curves.png
"""

from __future__ import annotations

import copy
import io
import logging
import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sdk.cores import allowed_cores
from sdk.errors import TrainingError
from sdk.files import write_bytes
from sdk.geometry import apply_affines, crop_affines
from sdk.in_flight import in_flight
from sdk.locks import held_folder
from sdk.networks import network_from_recipe
from sdk.networks.reader import notes_of_weights
from sdk.networks.transfer import start_from
from sdk.recipe import HeatmapHead, MarginalHead, Recipe
from sdk.strict import table_from
from sdk.training.augment import Augmentation
from sdk.training.codecs import coordinates_from_bins, joint_weights, targets_from_keypoints
from sdk.training.dataset import PersonDataset, batch_loader, epoch_batches
from sdk.training.files import CURVES, LOG, STATE, WEIGHTS, write_curves, write_log
from sdk.training.losses import heatmap_loss, heatmap_targets, simcc_loss
from sdk.training.packages import TRAINING, check_packages
from sdk.training.parallel import Processes
from sdk.training.settings import Settings
from sdk.training.validate import validation_scores

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module, Parameter

__all__ = ["Trainer"]

logger = logging.getLogger(__name__)
HEATMAP_SIGMA_CELLS = 2.0  # SimpleBaseline's
STRIDE = 32  # of every backbone that trains at several sizes
EMA_RAMP_STEPS = 20  # the average follows quickly at first: decay = min(ema, (step + 1) / (step + ramp))


class Trainer:
    """A run in `output`. `resume` takes up the run that lies there; without it a used folder is refused."""

    def __init__(
        self,
        recipe: Recipe,
        settings: Settings,
        train: PersonDataset,
        val: PersonDataset,
        output: Path,
        *,
        device: str = "cpu",
        resume: bool = False,
        weights: Path | None = None,
        progress: bool = False,
    ) -> None:
        check_packages(TRAINING)
        _check_stages(recipe, settings)
        import torch

        self.recipe, self.settings, self.train, self.val, self.output = recipe, settings, train, val, output
        self.processes = Processes.of_this_run(device)
        self.device = self.processes.device
        self.progress = progress and self.processes.first
        self.rows: list[dict[str, float]] = []
        self.epoch = self.step = 0
        self.best = -math.inf
        torch.set_num_threads(min(torch.get_num_threads(), allowed_cores()))
        torch.manual_seed(settings.seed)
        self.network = _channels_last(network_from_recipe(recipe).to(self.device))
        if weights is not None:
            start = start_from(self.network, recipe, weights)
            if self.processes.first:
                logger.info("starting from '%s': %s", weights.name, start)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.optimiser = _optimiser(self.network, settings)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.precision == "float16")
        self._open_output(resume)
        self.module = self.processes.wrap(self.network)
        if self.steps_an_epoch == 0:
            raise TrainingError(
                f"{len(train)} persons do not fill one batch of {settings.batch} x {self.processes.world}; "
                "choose a smaller batch"
            )

    @property
    def steps_an_epoch(self) -> int:
        return len(self.train) // (self.settings.batch * self.processes.world)

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return self.settings.epochs * self.steps_an_epoch

    @property
    def _warmup_steps(self) -> int:
        """As set, and at most a tenth of the run: a short one would end before it reaches its learning rate."""
        return min(self.settings.warmup_steps, self.steps // 10)

    def fit(self) -> dict[str, float]:
        """Run the remaining epochs; the last row of the log. OutputError where another run writes into `output`."""
        with held_folder(self.output) if self.processes.first else nullcontext():
            return self._fit()

    def _fit(self) -> dict[str, float]:
        while self.epoch < self.settings.epochs:
            started = time.perf_counter()
            row: dict[str, float] = {"epoch": self.epoch + 1, "loss": self._run_epoch(self.epoch)}
            self.epoch += 1
            row |= {"step": self.step, "learning_rate": self._rate(self.step - 1)}
            if self.epoch % self.settings.validate_every == 0 or self.epoch == self.settings.epochs:
                row |= self.validate()
            row["seconds"] = time.perf_counter() - started
            self.rows.append(row)
            if self.processes.first:
                self._write(row)
            self.processes.wait()
        return self.rows[-1]

    def validate(self) -> dict[str, float]:
        """PCK and AP of the averaged network on annotated boxes; every process measures, the first one reports."""
        import torch

        annotations = self.val.annotations
        keypoints = np.zeros((len(annotations), self.recipe.joints, 2), np.float32)
        scores = np.zeros((len(annotations), self.recipe.joints), np.float32)
        batches = np.array_split(np.arange(len(annotations)), math.ceil(len(annotations) / 128))
        loader = batch_loader(
            self.val, [chosen.tolist() for chosen in batches], 0, Augmentation.none(), self.settings.workers
        )
        with torch.inference_mode():
            for chosen, (crops, _) in zip(batches, loader, strict=True):
                with in_flight:
                    crop_px, batch_scores = self._decoded(self.average(self._pixels(crops)))
                boxes = np.stack([annotations[index].box_xyxy for index in chosen])
                affines = crop_affines(boxes, self.recipe.input.size_hw, self.recipe.input.box_padding)
                keypoints[chosen] = apply_affines(affines, crop_px)
                scores[chosen] = batch_scores
        return validation_scores(keypoints, scores, annotations, self.recipe.skeleton)

    def _run_epoch(self, epoch: int) -> float:
        """All steps of an epoch; their mean loss."""
        from tqdm import tqdm

        settings, processes = self.settings, self.processes
        batches = epoch_batches(self.train.order(epoch), settings.batch, processes.rank, processes.world)
        size_hw = self._size_hw(epoch)
        loader = batch_loader(self.train, batches, epoch, self._augmentation(epoch), settings.workers, size_hw)
        self.module.train()
        losses = []
        title = f"epoch {epoch + 1}/{settings.epochs}"
        with tqdm(loader, title, len(batches), leave=False, disable=not self.progress) as bar:
            for crops, keypoints in bar:
                with in_flight:
                    losses.append(self._step(crops, keypoints, size_hw))
                bar.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}", best=f"{max(self.best, 0):.2f}", refresh=False)
        return processes.mean(float(np.mean(losses)))

    def _step(self, crops: Tensor, keypoints: Tensor, size_hw: tuple[int, int]) -> float:
        """One optimiser step; its loss."""
        import torch

        for group in self.optimiser.param_groups:
            group["lr"] = self._rate(self.step)
        with self._mixed_precision():
            outputs = self.module(self._pixels(crops))
        loss = self._loss(outputs, keypoints.to(self.device), size_hw)
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimiser)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip_norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.step += 1
        self._follow()
        value = float(loss.detach())
        if not math.isfinite(value) and not self.scaler.is_enabled():
            raise TrainingError(f"step {self.step}: the loss is {value}; lower the learning rate or use float32")
        return value

    def _loss(self, outputs: Any, keypoints: Tensor, size_hw: tuple[int, int]) -> Tensor:
        ratio, settings = self.recipe.output.split_ratio, self.settings
        if ratio is None:
            stride = size_hw[1] / outputs.shape[3]
            targets = heatmap_targets(keypoints, tuple(outputs.shape[2:]), stride, HEATMAP_SIGMA_CELLS)
            return heatmap_loss(outputs, targets, joint_weights(keypoints, (size_hw[1], size_hw[0]), 1.0))
        bins_xy = (int(size_hw[1] * ratio), int(size_hw[0] * ratio))
        smoothing = settings.smoothing
        if smoothing.kind != "equal":  # a width is in pixels of the recipe's crop: it shrinks with the stage
            smoothing = replace(smoothing, width=smoothing.width * size_hw[1] / self.recipe.input.width)
        x, y, weights = targets_from_keypoints(keypoints, bins_xy, ratio, smoothing)
        return simcc_loss(outputs, (x, y), weights, settings.beta, settings.soften_targets)

    def _decoded(self, outputs: Any) -> tuple[np.ndarray, np.ndarray]:
        """Crop pixels (N x K x 2) and scores (N x K) by the plain rule: the first largest bin, or heatmap cell."""
        import torch

        if self.recipe.output.split_ratio is None:
            width = outputs.shape[3]
            peak, cell = outputs.float().flatten(2).max(dim=2)
            stride = self.recipe.input.width / width
            xy = torch.stack([cell % width, torch.div(cell, width, rounding_mode="floor")], dim=2) * stride
            return xy.cpu().numpy().astype(np.float32), peak.cpu().numpy()
        peaks = [axis.float().softmax(dim=2).max(dim=2) for axis in outputs]
        bins = torch.stack([peak.indices for peak in peaks], dim=2)
        scores = torch.minimum(peaks[0].values, peaks[1].values)
        return coordinates_from_bins(bins, self.recipe.output.split_ratio).cpu().numpy(), scores.cpu().numpy()

    def _pixels(self, crops: Tensor) -> Tensor:  # uint8 N x h x w x 3, BGR
        """N x 3 x h x w float32, normalised in the recipe's colour order, channels last in memory."""
        import torch

        chosen = self.recipe.input
        pixels = crops.to(self.device).permute(0, 3, 1, 2).float()
        pixels = pixels.flip(1) if chosen.colour == "rgb" else pixels
        mean, std = (torch.tensor(v, device=self.device).view(1, 3, 1, 1) for v in (chosen.mean, chosen.std))
        return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)

    def _follow(self) -> None:
        """Move the averaged weights and statistics towards the network's."""
        import torch

        decay = min(self.settings.ema, (self.step + 1) / (self.step + EMA_RAMP_STEPS))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.network.parameters()), 1 - decay)
            for mean, now in zip(self.average.buffers(), self.network.buffers(), strict=True):
                mean.lerp_(now, 1 - decay) if mean.is_floating_point() else mean.copy_(now)

    def _rate(self, step: int) -> float:
        """Warm-up, then cosine down to `final_rate`."""
        settings = self.settings
        part = step / max(1, self.steps)
        cosine = 0.5 * (1 + math.cos(math.pi * part)) * (1 - settings.final_rate) + settings.final_rate
        return settings.learning_rate * min(1.0, (step + 1) / max(1, self._warmup_steps)) * cosine

    def _size_hw(self, epoch: int) -> tuple[int, int]:
        part = epoch / self.settings.epochs
        for stage in self.settings.stages:
            if part < stage.until:
                return stage.height, stage.width
        return self.recipe.input.size_hw

    def _augmentation(self, epoch: int) -> Augmentation:
        chosen = self.settings.augmentation
        if epoch < self.settings.epochs - self.settings.plain_epochs:
            return chosen
        return replace(chosen, half_body=0.0, colour=0.0, grey=0.0, blur=0.0, cut_out=0.0)

    def _mixed_precision(self) -> AbstractContextManager[Any]:
        import torch

        precision = self.settings.precision
        return torch.autocast(self.device.type, dtype=getattr(torch, precision), enabled=precision != "float32")

    def _write(self, row: dict[str, float]) -> None:
        """Best weights, then the checkpoint, then what is drawn from it.

        A kill before the checkpoint repeats the epoch and writes the same again; one after it loses nothing.
        """
        logger.info("%s", ", ".join(f"{key} {value:.4g}" for key, value in row.items()))
        if row.get("pck_0.2", -math.inf) > self.best:
            self.best = row["pck_0.2"]
            self._save_weights(self.output / WEIGHTS)
        self._checkpoint()
        self._draw()

    def _draw(self) -> None:
        write_log(self.output / LOG, self.rows)
        write_curves(self.output / CURVES, self.rows)

    def _save_weights(self, path: Path) -> None:
        from safetensors.torch import save

        state = {name: value.contiguous().cpu() for name, value in self.average.state_dict().items()}
        write_bytes(path, save(state, notes_of_weights(self.recipe.name, self.recipe.skeleton.joints)))

    def _checkpoint(self) -> None:
        import torch

        state = {
            "run": self._identity(),
            "epoch": self.epoch,
            "step": self.step,
            "best": self.best,
            "rows": self.rows,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": torch.get_rng_state(),
        }
        content = io.BytesIO()
        torch.save(state, content)
        write_bytes(self.output / STATE, content.getvalue())

    def _open_output(self, resume: bool) -> None:
        path = self.output / STATE
        if path.exists() and not resume:
            raise TrainingError(
                f"'{self.output}' already holds a run; resume it with --resume or choose another folder"
            )
        if resume and path.exists():
            self._take_up(path)
        elif resume:
            logger.info("'%s' holds no checkpoint yet; starting at epoch 1", self.output)
        self.output.mkdir(parents=True, exist_ok=True)

    def _take_up(self, path: Path) -> None:
        import torch

        state = torch.load(path, map_location=self.device, weights_only=True)
        different = _differences(state["run"], self._identity())
        if different:
            raise TrainingError(
                f"'{path}' was made otherwise ({', '.join(different)}); resume with the same recipe, settings, persons "
                "and number of processes, or choose another folder"
            )
        self.epoch, self.step, self.best, self.rows = (state[key] for key in ("epoch", "step", "best", "rows"))
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"].cpu())
        if self.processes.first:
            self._draw()  # the run may have been killed after its checkpoint
        logger.info("resumed '%s' after epoch %d", self.output, self.epoch)

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a resumed run to be the same run."""
        return {
            "recipe": table_from(self.recipe),
            "settings": table_from(self.settings),
            "processes": self.processes.world,
            "persons": len(self.train),
        }


def _differences(theirs: Any, ours: Any, name: str = "") -> list[str]:
    """Where two tables differ: 'settings.epochs 3, now 9'."""
    if not (isinstance(theirs, dict) and isinstance(ours, dict)):
        return [] if theirs == ours else [f"{name} {theirs}, now {ours}"]
    keys = dict.fromkeys([*theirs, *ours])
    pairs = [(f"{name}.{key}" if name else key, theirs.get(key), ours.get(key)) for key in keys]
    return [words for inner, one, other in pairs for words in _differences(one, other, inner)]


def _check_stages(recipe: Recipe, settings: Settings) -> None:
    """TrainingError for a stage whose size the recipe's network does not take."""
    head, whole = recipe.design.head, recipe.input.size_hw
    for stage in settings.stages:
        size = (stage.height, stage.width)
        if size == whole:
            continue
        if not isinstance(head, (HeatmapHead, MarginalHead)):
            raise TrainingError(
                f"stages: head '{head.kind}' of recipe '{recipe.name}' learns a weight for each place of the crop, so "
                f"every stage must have the recipe's size {whole[0]} x {whole[1]} (got {size[0]} x {size[1]}); leave "
                "the stages out"
            )
        if min(size) < STRIDE or size[0] % STRIDE or size[1] % STRIDE:
            raise TrainingError(
                f"stages: height and width must be multiples of {STRIDE} (got {size[0]} x {size[1]}); choose others"
            )


def _channels_last(network: Module) -> Module:
    """The memory order that convolutions are fastest in, on CPU and GPU alike."""
    import torch

    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _optimiser(network: Module, settings: Settings) -> Any:
    """AdamW; biases and normalisation do not decay."""
    import torch

    matrices: list[Parameter] = [p for p in network.parameters() if p.ndim > 1]
    vectors: list[Parameter] = [p for p in network.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.99))
