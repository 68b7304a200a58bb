"""What a GPU's own clock says: the plan alone, and each stage run apart. Never mixed with the caller's clock.

    table = device_times(pipeline, frame, batches=(1, 4), boxes=[boxes_xyxy])
    table["network_ms"]["1"]["p50"]           # as trtexec's GPU compute time, in the SDK's own CUDA graph

Stages are run apart and timed by events; inside the one CUDA graph of a frame they cost less together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sdk.evaluate.speed.latency import spread
from sdk.geometry import crop_affines
from sdk.recipe import Recipe

__all__ = ["DeviceClock", "device_times"]

Float32Array = NDArray[np.float32]
REPEATS = 100


@runtime_checkable
class DeviceClock(Protocol):
    """A pipeline whose device times its own work."""

    @property
    def recipe(self) -> Recipe: ...

    @property
    def max_batch(self) -> int: ...

    def stages(self, frame: Any, affines: Float32Array, *, flip: bool = False) -> dict[str, float]:
        """Device milliseconds of upload, crop, network and decode with the download."""
        ...

    def launches(self, count: int, *, flip: bool = False) -> int | None:
        """Kernels that a call for `count` persons starts; None where it is no graph."""
        ...

    def network_ms(self, count: int, repeats: int = 100) -> list[float]:
        """Device milliseconds of the plan alone, `repeats` times."""
        ...


def device_times(
    pipeline: DeviceClock, frame: NDArray[np.uint8], batches: Sequence[int], boxes: Sequence[Float32Array]
) -> dict[str, Any]:
    """Spreads of device milliseconds: the network by batch, the stages by persons (one chunk at most)."""
    source = pipeline.recipe.input
    stages: dict[str, Any] = {}
    for each in boxes:
        affines = crop_affines(each[: pipeline.max_batch], source.size_hw, source.box_padding)
        samples = [pipeline.stages(frame, affines) for _ in range(REPEATS)]
        stages[str(len(affines))] = {name: spread(np.array([one[name] for one in samples])) for name in samples[0]}
    network = {str(batch): spread(np.array(pipeline.network_ms(batch, REPEATS))) for batch in batches}
    return {"network_ms": network, "stages_ms": stages}
