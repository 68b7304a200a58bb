"""The figures of a run, for the page and for Prometheus: rates, latency by stage, persons, what was dropped.

Percentiles are of the last WINDOW_S seconds; counters and the histogram are of the whole run. Any thread may note, any
may read.

    gauges.note_result(camera=0, persons=2, age_ms=14.0, stages_ms={"network": 8.1})
    gauges.stages()                                # [{"name": "network", "p50": 8.1, "p99": 9.0}, ...]
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from time import monotonic
from typing import Any

import numpy as np

__all__ = ["BUCKETS_MS", "CameraGauge", "Gauges"]

WINDOW_S = 10.0
RATE_S = 3.0
MOST_SAMPLES = 2048  # of a stage within the window: 200 frames a second
BUCKETS_MS = (2.5, 5.0, 10.0, 16.7, 25.0, 33.3, 50.0, 75.0, 100.0, 250.0, 500.0, 1000.0)
# Stages in the order in which a frame goes through them; others come where they are first seen, before 'encode'.
FIRST, LAST = ("wait", "detect", "crop", "upload"), ("encode", "send")
Samples = deque[tuple[float, float]]  # seconds, value


class CameraGauge:
    """Counts of one camera."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.frames = self.persons = 0
        self.last_s: float | None = None
        self.ages_ms: Samples = deque(maxlen=MOST_SAMPLES)
        self.buckets = [0] * (len(BUCKETS_MS) + 1)
        self.sum_ms = 0.0

    def fps(self, now_s: float) -> float:
        """Frames a second of the last moments."""
        recent = [at for at, _ in self.ages_ms if now_s - at <= RATE_S]
        return 0.0 if len(recent) < 2 else (len(recent) - 1) / max(now_s - recent[0], 1e-3)


class Gauges:
    """What is measured of all cameras of a run."""

    def __init__(self, names: Sequence[str], clock: Callable[[], float] = monotonic) -> None:
        self.cameras = [CameraGauge(name) for name in names]
        self._clock = clock
        self._stages: dict[str, Samples] = {}
        self._lock = Lock()

    def note_result(self, camera: int, persons: int, age_ms: float, stages_ms: Mapping[str, float]) -> None:
        """A frame's joints are there, `age_ms` after its picture was taken."""
        now, gauge = self._clock(), self.cameras[camera]
        with self._lock:
            gauge.frames += 1
            gauge.persons = persons
            gauge.last_s = now
            gauge.ages_ms.append((now, age_ms))
            gauge.buckets[bisect_left(BUCKETS_MS, age_ms)] += 1
            gauge.sum_ms += age_ms
            for name, value in stages_ms.items():
                self._samples(name).append((now, value))

    def note_stage(self, name: str, value_ms: float) -> None:
        """A stage that is not the estimator's: encoding, sending."""
        with self._lock:
            self._samples(name).append((self._clock(), value_ms))

    def since_last_s(self, camera: int) -> float | None:
        """Seconds since the camera's last result; None before the first."""
        last = self.cameras[camera].last_s
        return None if last is None else self._clock() - last

    def rates(self) -> list[dict[str, Any]]:
        """Of each camera: frames a second, persons, its latency and how long ago the last result was."""
        with self._lock:
            now = self._clock()
            return [
                {
                    "name": gauge.name,
                    "fps": round(gauge.fps(now), 1),
                    "frames": gauge.frames,
                    "persons": gauge.persons,
                    "age_s": None if gauge.last_s is None else round(now - gauge.last_s, 2),
                    "latency_ms": _percentiles(gauge.ages_ms, now),
                }
                for gauge in self.cameras
            ]

    def stages(self) -> list[dict[str, Any]]:
        """Median and 99th percentile of each stage over the window, in the order in which a frame goes."""
        with self._lock:
            now = self._clock()
            found = {name: _percentiles(samples, now) for name, samples in self._stages.items()}
        order = sorted(found, key=_place)
        return [{"name": name, **told} for name in order if (told := found[name]) is not None]

    def samples(self, name: str) -> list[tuple[float, float]]:
        """When each of a stage's last times was noted, and how many milliseconds it was."""
        with self._lock:
            return list(self._samples(name))

    def _samples(self, name: str) -> Samples:
        return self._stages.setdefault(name, deque(maxlen=MOST_SAMPLES))


def _place(name: str) -> int:
    if name in FIRST:
        return FIRST.index(name)
    return 100 + LAST.index(name) if name in LAST else 50


def _percentiles(samples: Samples, now_s: float) -> dict[str, float] | None:
    recent = [value for at, value in samples if now_s - at <= WINDOW_S]
    if not recent:
        return None
    middle, late = np.percentile(recent, (50, 99))
    return {"p50": round(float(middle), 2), "p99": round(float(late), 2)}
