"""The pictures of all persons on the device that trains: a crop is then cut where it is used, by the same op.

resident = ResidentPictures(dataset, device)
crops = resident.crops(batch.rows, batch.affines, (128, 128))         # N x 3 x h x w float32, grey levels, BGR
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdk import ops
from sdk.errors import SdkError
from sdk.training.dataset import PersonDataset

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ResidentPictures", "why_not_resident"]

Float32Array = NDArray[np.float32]


def why_not_resident(dataset: PersonDataset, device: Any) -> str | None:
    """Why crops are cut on the CPU and sent, or None where the device can keep the pictures."""
    if device.type != "cuda":
        return "the CPU trains"
    if not dataset.all_in_memory:
        return "they do not fit into cache_gib"
    try:
        ops.cuda_half()
    except SdkError as error:
        return str(error)
    return None


class ResidentPictures:
    """The pictures of a data set's persons, in the device's memory."""

    def __init__(self, dataset: PersonDataset, device: Any) -> None:
        import torch

        self._device = device
        self._pictures = [torch.from_numpy(dataset.person(row).image).to(device) for row in range(len(dataset))]

    def crops(self, rows: NDArray[np.int64], affines: Float32Array, size_hw: tuple[int, int]) -> Tensor:
        """N x 3 x h x w of persons `rows`. `affines`: N x 2 x 3, crop -> picture pixels."""
        import torch

        out = torch.empty((len(rows), 3, *size_hw), device=self._device)
        placed = torch.from_numpy(affines).to(self._device)
        stream = torch.cuda.current_stream(self._device).cuda_stream if self._device.type == "cuda" else None
        for place, row in enumerate(rows.tolist()):
            one = slice(place, place + 1)
            ops.crop(
                self._pictures[row], placed[one], size_hw, mean=(0, 0, 0), std=(1, 1, 1), channel_order="bgr",
                out=out[one], stream=stream,
            )  # fmt: skip
        return out
