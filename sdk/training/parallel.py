"""One process or several: torch's own DistributedDataParallel, as `torchrun` starts it. Nothing of its own.

torchrun --nproc-per-node 2 -m sdk.cli train ...      # sets RANK, WORLD_SIZE, LOCAL_RANK

processes = Processes.of_this_run("cuda")
module = processes.wrap(network)
"""

from __future__ import annotations

import os
import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sdk.errors import DeviceError

if TYPE_CHECKING:
    from torch.nn import Module

__all__ = ["Processes", "check_device"]


def check_device(device: str) -> tuple[str, int | None]:
    """The kind, and of 'cuda:N' the number, of a device to train on. DeviceError where this process cannot have it."""
    import torch

    kind, _, number = device.partition(":")
    if re.fullmatch(r"cpu|cuda(:[0-9]{1,3})?", device) is None:
        raise DeviceError(f"training device must be cpu, cuda or cuda:N (got '{device}')")
    if kind == "cuda" and not torch.cuda.is_available():
        raise DeviceError(f"device {device}: torch finds no CUDA device here; train with --device cpu")
    if number and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise DeviceError(
            f"device {device} would be every process's; give cuda, of which each takes a device of its own"
        )
    if number and int(number) >= torch.cuda.device_count():
        raise DeviceError(f"device {device} is not there: torch finds {torch.cuda.device_count()}, counted from 0")
    return kind, int(number) if number else None


@dataclass(frozen=True)
class Processes:
    """This process among `world`; `device` is a torch.device."""

    rank: int
    world: int
    device: Any

    @classmethod
    def of_this_run(cls, device: str) -> Processes:
        """Read what `torchrun` set, join the group, and take this process's GPU."""
        import torch

        kind, index = check_device(device)
        world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        if kind == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) if index is None else index)
        if world > 1 and not torch.distributed.is_initialized():
            torch.distributed.init_process_group("nccl" if kind == "cuda" else "gloo")
        return cls(
            rank, world, torch.device(kind, torch.cuda.current_device()) if kind == "cuda" else torch.device(kind)
        )

    @property
    def first(self) -> bool:
        """The process that writes files."""
        return self.rank == 0

    def wrap(self, network: Module) -> Module:
        """The module whose backward averages gradients over all processes."""
        if self.world == 1:
            return network
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(network)

    def apart(self, module: Module, alone: bool) -> AbstractContextManager[Any]:
        """Where gradients are gathered over several batches: those before the last are not averaged over processes."""
        return module.no_sync() if alone and self.world > 1 else nullcontext()  # type: ignore[operator]

    def mean(self, value: float) -> float:
        """`value` averaged over all processes."""
        if self.world == 1:
            return value
        import torch

        total = torch.tensor([value], dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total)
        return float(total.item()) / self.world

    def wait(self) -> None:
        """Until every process is here."""
        if self.world > 1:
            import torch

            torch.distributed.barrier()

    def leave(self) -> None:
        """Leave the group, at the end of a run."""
        if self.world > 1:
            import torch

            torch.distributed.destroy_process_group()
