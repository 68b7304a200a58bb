"""Joints without jitter: the one-euro filter (Casiez, Roussel, Vogel, CHI 2012) for each joint of each person.

A low-pass filter whose cut-off rises with the joint's speed: what stands still is held, what moves is let through. The
paper's filter takes one number; here a joint's speed is that of both its coordinates, in the person's own sizes a
second, so that one setting serves near and far; and a joint that scores below `fair` moves the result less. Whoever was
not in the frame before, or a joint that was not fair for a while, starts anew.

    smoother = Smoother(Smoothing(), fair=0.3)
    keypoints = smoother.smoothed(ids, boxes, keypoints, scores, time_ms=None)      # N x K x 2
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdk.errors import InputError
from sdk.numeric import is_number
from sdk.people.tracking import same_rows

__all__ = ["Smoother", "Smoothing"]

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]

SHORTEST_S, LONGEST_S = 1e-4, 0.5  # between two frames of one movement; after less or more all start anew
SPEED_HZ = 1.0  # cut-off of the speed's own filter, the paper's; 2 and 4 let through 1.1 and 1.2 times the jitter
# A spread of so many sizes or less weighs 1. With it, at one lag, rendered walkers (`benchmarks/smoothing.py`) have
# 0.97 times the error and 0.95 times the jitter, and those who stand 0.8 times the error.
NARROW = 0.04
UNSURE = 0.25  # weight of a joint that scores 0, beside 1 from `fair` on
STALE = 5  # frames in a row below half of `fair`, after which a joint that is fair again starts anew


@dataclass(frozen=True)
class Smoothing:
    """`still_hz`: cut-off for a joint that stands still; `beta`: hertz that a speed of one body size a second adds.
    `fps`: of frames that come without their times."""

    still_hz: float = 1.0
    beta: float = 6.0
    fps: float = 30.0

    def __post_init__(self) -> None:
        for name in ("still_hz", "beta", "fps"):
            value = getattr(self, name)
            lowest = 0 if name == "beta" else 1e-3
            if not is_number(value) or not lowest <= value <= 1e4:
                raise InputError(f"Smoothing: {name} must be a number from {lowest:g} to 10000 (got {value!r})")
            object.__setattr__(self, name, float(value))  # of numpy's short ones little would be left in what follows


@dataclass
class _State:
    """Of the persons of the last frame, row by row."""

    ids: NDArray[np.int64]  # N
    raw: Float64Array  # N x K x 2
    place: Float64Array  # N x K x 2, smoothed
    speed: Float64Array  # N x K x 2, sizes a second, smoothed
    stale: NDArray[np.int64]  # N x K, frames in a row in which the joint was not seen


class Smoother:
    """The filters of one video."""

    def __init__(self, smoothing: Smoothing, fair: float) -> None:
        self._smoothing = smoothing
        self._fair = fair
        self.reset()

    def reset(self) -> None:
        """Start anew, as before another video."""
        self._state: _State | None = None
        self._time_ms: float | None = None

    def smoothed(
        self,
        ids: NDArray[np.int64],  # N; an id that is not positive is nobody's, and not smoothed
        boxes: Float32Array,  # N x 4 xyxy
        keypoints: Float32Array,  # N x K x 2
        scores: Float32Array,  # N x K
        time_ms: float | None = None,
        spread: Float32Array | None = None,  # N x K x 2, frame pixels
    ) -> Float32Array:
        """The joints of the next frame, N x K x 2."""
        seconds = self._seconds_since(time_ms)
        raw, last = keypoints.astype(np.float64), self._state
        weak = scores < 0.5 * self._fair
        state = _State(ids.copy(), raw, raw.copy(), np.zeros_like(raw), weak.astype(np.int64))
        if last is not None and seconds is not None and len(ids) and len(last.ids):
            rows, olds = same_rows(ids, last.ids)
            if len(rows):
                sizes_px = np.maximum(np.sqrt(np.prod(boxes[rows, 2:] - boxes[rows, :2], axis=1)), 1.0)
                trust = self._trust(scores[rows], None if spread is None else spread[rows], sizes_px)
                self._move(state, rows, last, olds, sizes_px, trust, seconds)
        self._state = state
        return state.place.astype(np.float32)

    def _move(
        self,
        state: _State,
        rows: NDArray[np.intp],  # M
        last: _State,
        olds: NDArray[np.intp],  # M, their rows there
        sizes_px: Float64Array,  # M
        trust: Float64Array,  # M x K
        seconds: float,
    ) -> None:
        """The filter's step, for persons who were in the frame before."""
        moved = (state.raw[rows] - last.raw[olds]) / (sizes_px[:, None, None] * seconds)
        speed = last.speed[olds] + _share(SPEED_HZ, seconds) * (moved - last.speed[olds])
        cut_off = self._smoothing.still_hz + self._smoothing.beta * np.linalg.norm(speed, axis=2)
        share = (_share(cut_off, seconds) * trust)[..., None]
        place = last.place[olds] + share * (state.raw[rows] - last.place[olds])
        anew = (last.stale[olds] >= STALE) & (state.stale[rows] == 0)
        state.place[rows] = np.where(anew[..., None], state.raw[rows], place)
        state.speed[rows] = np.where(anew[..., None], 0.0, speed)
        state.stale[rows] = np.where(state.stale[rows] > 0, last.stale[olds] + 1, 0)

    def _trust(
        self,
        scores: Float32Array,  # M x K
        spread: Float32Array | None,  # M x K x 2
        sizes_px: Float64Array,  # M
    ) -> Float64Array:  # M x K
        """How much a joint counts, from UNSURE up to 1."""
        trust: Float64Array = np.clip(scores / self._fair, 0, 1).astype(np.float64)
        if spread is not None:
            trust *= np.clip(NARROW * sizes_px[:, None] / np.maximum(spread.mean(axis=2), 1e-6), 0, 1)
        weight: Float64Array = UNSURE + (1 - UNSURE) * trust
        return weight

    def _seconds_since(self, time_ms: float | None) -> float | None:
        """Since the last frame; None where that is too long ago, or not before this one."""
        before, self._time_ms = self._time_ms, None if time_ms is None else float(time_ms)
        if self._time_ms is None or before is None:
            return 1 / self._smoothing.fps
        seconds = (self._time_ms - before) / 1e3
        return seconds if SHORTEST_S <= seconds <= LONGEST_S else None


def _share(hertz: float | Float64Array, seconds: float) -> Float64Array:
    """How much of a new value a low-pass filter of this cut-off takes."""
    turn = 2 * math.pi * np.asarray(hertz, np.float64) * seconds
    share: Float64Array = turn / (turn + 1)
    return share
