"""The GPU run time's arithmetic: which batch bucket, where buffers lie. Pure code.

Which bytes of a frame are uploaded is arithmetic too, done on every frame in `cpp_ext/host/packing.h`.

    bucket_of(3, buckets(1, 16))                 # 4
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

__all__ = [
    "AFFINE_BYTES",
    "ALIGNMENT",
    "FRAME_BYTES",
    "BufferLayout",
    "affines_at",
    "bucket_of",
    "buckets",
    "buffer_layout",
    "crops_bytes",
]

ALIGNMENT = 256  # bytes; what TensorRT asks of tensors and activations
FRAME_BYTES = 40  # of `sdk::Frame` in cpp_ext/sdk_ops.h
AFFINE_BYTES = 24


def buckets(smallest: int, largest: int) -> tuple[int, ...]:
    """Batch sizes that get a graph: the powers of two between `smallest` and `largest`, and both of these."""
    powers = (1 << exponent for exponent in range(largest.bit_length()))
    return tuple(sorted({smallest, largest} | {power for power in powers if smallest <= power <= largest}))


def bucket_of(count: int, choices: Sequence[int]) -> int:
    """The smallest of the ascending `choices` that holds `count` persons; never more than the last is asked."""
    for choice in choices:
        if count <= choice:
            return choice
    raise AssertionError(f"{count} persons exceed the largest bucket {choices[-1]}; the estimator cuts chunks")


def affines_at(batch: int) -> int:
    """Where the affines begin in the parameters of a batch of crops: after a frame record each."""
    return -(-batch * FRAME_BYTES // ALIGNMENT) * ALIGNMENT


def crops_bytes(batch: int) -> int:
    """The parameters of a batch of crops: records, affines, affines of the mirrored crops."""
    return affines_at(batch) + 2 * batch * AFFINE_BYTES


@dataclass(frozen=True)
class BufferLayout:
    """Where each buffer lies in one allocation. Offsets are multiples of `ALIGNMENT`."""

    offsets: Mapping[str, int]
    sizes: Mapping[str, int]
    total_bytes: int


def buffer_layout(sizes: Mapping[str, int]) -> BufferLayout:
    """Buffers of these bytes, one after the other in the order given. An empty one still has an address of its own."""
    offsets, end = {}, 0
    for name, size in sizes.items():
        offsets[name] = end
        end += max(1, ceil(size / ALIGNMENT)) * ALIGNMENT
    return BufferLayout(offsets, dict(sizes), max(end, ALIGNMENT))
