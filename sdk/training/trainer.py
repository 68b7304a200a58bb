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
import logging
import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
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
from sdk.recipe import Recipe
from sdk.strict import table_from
from sdk.training.augment import Augmentation
from sdk.training.codecs import coordinates_from_bins
from sdk.training.dataset import Batch, PersonDataset, batch_loader, epoch_batches
from sdk.training.files import CURVES, LOG, STATE, WEIGHTS, write_curves, write_log
from sdk.training.looks import with_looks
from sdk.training.losses import label_loss
from sdk.training.packages import TRAINING, check_packages
from sdk.training.parallel import Processes
from sdk.training.resident import ResidentPictures, why_not_resident
from sdk.training.saved import read_state, write_state
from sdk.training.schedule import Schedule, check_stages
from sdk.training.settings import Settings
from sdk.training.teacher import Teacher
from sdk.training.validate import validation_scores

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module, Parameter

__all__ = ["Trainer"]

logger = logging.getLogger(__name__)
EMA_RAMP_STEPS = 20  # the average follows quickly at first: decay = min(ema, (step + 1) / (step + ramp))


class Trainer:
    """A run in `output`. `resume` takes up the run that lies there; without it a used folder is refused.

    `teacher`: also learn its distributions.
    """

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
        teacher: Teacher | None = None,
        progress: bool = False,
    ) -> None:
        check_packages(TRAINING)
        check_stages(recipe, settings)
        import torch

        self.recipe, self.settings, self.train, self.val, self.output = recipe, settings, train, val, output
        self.teacher = teacher
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
        self.persons_a_step = settings.batch * settings.accumulate * self.processes.world
        self.schedule = Schedule(settings, len(train) // self.persons_a_step, recipe.input.size_hw)
        self._open_output(resume)
        self.module = self.processes.wrap(self.network)
        if self.schedule.steps_an_epoch == 0:
            raise TrainingError(
                f"{len(train)} persons do not fill one step of {settings.batch} x {settings.accumulate} x "
                f"{self.processes.world}; choose a smaller batch"
            )
        reason = why_not_resident(train, self.device)
        self.resident = None if reason else ResidentPictures(train, self.device)
        if self.device.type != "cpu" and self.processes.first:
            logger.info("pictures lie in memory of the %s", "GPU" if reason is None else f"CPU: {reason}")

    def fit(self) -> dict[str, float]:
        """Run the remaining epochs; the last row of the log. OutputError where another run writes into `output`."""
        with held_folder(self.output) if self.processes.first else nullcontext():
            return self._fit()

    def _fit(self) -> dict[str, float]:
        began, first = time.perf_counter(), self.epoch
        while self.epoch < self.settings.epochs:
            started = time.perf_counter()
            row: dict[str, float] = {"epoch": self.epoch + 1, "loss": self._run_epoch(self.epoch)}
            spent = time.perf_counter() - started
            self.epoch += 1
            row |= {"step": self.step, "learning_rate": self.schedule.rate(self.step - 1)}
            row["persons_a_second"] = self.schedule.steps_an_epoch * self.persons_a_step / spent
            if self.epoch % self.settings.validate_every == 0 or self.epoch == self.settings.epochs:
                row |= self.validate()
            row["seconds"] = time.perf_counter() - started
            self.rows.append(row)
            if self.processes.first:
                left = (time.perf_counter() - began) / (self.epoch - first) * (self.settings.epochs - self.epoch)
                self._write(row, left)
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
            for chosen, batch in zip(batches, loader, strict=True):
                with in_flight:
                    crop_px, batch_scores = self._decoded(self.average(self._pixels(self._sent(batch.crops))))
                boxes = np.stack([annotations[index].box_xyxy for index in chosen])
                affines = crop_affines(boxes, self.recipe.input.size_hw, self.recipe.input.box_padding)
                keypoints[chosen] = apply_affines(affines, crop_px)
                scores[chosen] = batch_scores
        return validation_scores(keypoints, scores, annotations, self.recipe.skeleton)

    def _run_epoch(self, epoch: int) -> float:
        """All steps of an epoch; their mean loss."""
        from tqdm import tqdm

        settings, steps, size_hw = self.settings, self.schedule.steps_an_epoch, self.schedule.size_hw(epoch)
        batches = self._batches(epoch, size_hw)
        self.module.train()
        losses: list[float] = []
        title = f"epoch {epoch + 1}/{settings.epochs}"
        with tqdm(range(steps), title, leave=False, disable=not self.progress) as bar:
            for _ in bar:
                with in_flight:
                    losses.append(self._step([next(batches) for _ in range(settings.accumulate)], size_hw))
                persons = self.persons_a_step * (bar.format_dict["rate"] or 0)
                loss, best = np.mean(losses[-50:]), max(self.best, 0)
                bar.set_postfix_str(f"loss {loss:.3f}, best {best:.2f}, {persons:.0f} persons/s", refresh=False)
        return self.processes.mean(float(np.mean(losses)))

    def _batches(self, epoch: int, size_hw: tuple[int, int]) -> Iterator[Batch]:
        """What this process learns from in an epoch."""
        settings, processes = self.settings, self.processes
        return batch_loader(
            self.train,
            epoch_batches(self.train.order(epoch), settings.batch, processes.rank, processes.world),
            epoch,
            self.schedule.augmentation(epoch),
            settings.workers,
            size_hw=size_hw,
            view=None if self.teacher is None else self.teacher.view,
            here=self.resident is None,
        )

    def _step(self, batches: list[Batch], size_hw: tuple[int, int]) -> float:
        """One optimiser step over the batches; their mean loss."""
        import torch

        for group in self.optimiser.param_groups:
            group["lr"] = self.schedule.rate(self.step)
        self.optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for index, batch in enumerate(batches):
            with self.processes.apart(self.module, index + 1 < len(batches)):
                loss = self._loss(batch, size_hw) / len(batches)
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                total += float(loss.detach())
        self.scaler.unscale_(self.optimiser)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip_norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.step += 1
        self._follow()
        if not math.isfinite(total) and not self.scaler.is_enabled():
            raise TrainingError(f"step {self.step}: the loss is {total}; lower the learning rate or use float32")
        return total

    def _loss(self, batch: Batch, size_hw: tuple[int, int]) -> Tensor:
        """Of the labels, and of the teacher if there is one."""
        crops, views = self._cut(batch, size_hw)
        pixels = self._pixels(with_looks(crops, self._sent(batch.looks)))
        with self._mixed_precision():
            outputs = self.module(pixels)
        labels = self._sent(batch.keypoints), self._sent(batch.weights)
        loss = label_loss(outputs, labels, size_hw, self.recipe, self.settings)
        if self.teacher is None:
            return loss
        share, taught = self.settings.distil, self.teacher.loss(outputs, self.teacher.targets(views, size_hw))
        return (1 - share) * loss + share * taught

    def _cut(self, batch: Batch, size_hw: tuple[int, int]) -> tuple[Tensor, np.ndarray]:
        """Grey levels, N x 3 x h x w: of the crops on the device, and of what the teacher sees of them."""
        if self.resident is None:
            return self._sent(batch.crops), batch.views
        crops = self.resident.crops(batch.rows, batch.affines, size_hw)
        if self.teacher is None:
            return crops, batch.views
        view = self.teacher.view
        views = self.resident.crops(batch.rows, view.affines(batch.affines, size_hw), view.size_hw)
        return crops, views.cpu().numpy()

    def _sent(self, values: np.ndarray) -> Tensor:
        """The values on the device."""
        import torch

        return torch.from_numpy(values).to(self.device)

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

    def _pixels(self, crops: Tensor) -> Tensor:  # N x 3 x h x w grey levels, BGR
        """The crops normalised in the recipe's colour order, channels last in memory."""
        import torch

        chosen = self.recipe.input
        pixels = crops.flip(1) if chosen.colour == "rgb" else crops
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

    def _mixed_precision(self) -> AbstractContextManager[Any]:
        import torch

        precision = self.settings.precision
        return torch.autocast(self.device.type, dtype=getattr(torch, precision), enabled=precision != "float32")

    def _write(self, row: dict[str, float], left_s: float) -> None:
        """Best weights, then the checkpoint, then what is drawn from it.

        A kill before the checkpoint repeats the epoch and writes the same again; one after it loses nothing.
        """
        from tqdm import tqdm

        told = ", ".join(f"{key} {value:.4g}" for key, value in row.items())
        logger.info("%s; %s left", told, tqdm.format_interval(left_s))
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

    @property
    def _parts(self) -> dict[str, Any]:
        """What has a state."""
        return {"network": self.network, "average": self.average, "optimiser": self.optimiser, "scaler": self.scaler}

    def _checkpoint(self) -> None:
        values = {"epoch": self.epoch, "step": self.step, "best": self.best, "rows": self.rows}
        write_state(self.output / STATE, self._identity(), self._parts, values)

    def _open_output(self, resume: bool) -> None:
        path = self.output / STATE
        if path.exists() and not resume:
            raise TrainingError(
                f"'{self.output}' already holds a run; resume it with --resume or choose another folder"
            )
        if resume and path.exists():
            values = read_state(path, self._identity(), self._parts, self.device)
            self.epoch, self.step, self.best, self.rows = (values[key] for key in ("epoch", "step", "best", "rows"))
            if self.processes.first:
                self._draw()  # the run may have been killed after its checkpoint
            logger.info("resumed '%s' after epoch %d", self.output, self.epoch)
        elif resume:
            logger.info("'%s' holds no checkpoint yet; starting at epoch 1", self.output)
        self.output.mkdir(parents=True, exist_ok=True)

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a resumed run to be the same run."""
        return {
            "recipe": table_from(self.recipe),
            "settings": table_from(self.settings),
            "processes": self.processes.world,
            "persons": len(self.train),
            "teacher": None if self.teacher is None else self.teacher.key,
        }


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
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.99), fused=True)
