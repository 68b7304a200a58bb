"""The figures in Prometheus' text form (version 0.0.4), for `/metrics`.

exposition(watch.statistics(), watch.gauges, lost=watch.lost, replaced=viewers.replaced)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from sdk.live.gauges import BUCKETS_MS, CameraGauge, Gauges

__all__ = ["CONTENT_TYPE", "exposition"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = Mapping[str, str]
COUNTS = {
    "dropped": "Frames of a live source that a newer one took the place of.",
    "late": "Frames that came too late to be of use.",
    "broken": "Frames that could not be decoded.",
    "reconnections": "Times that the source came back.",
}
READINGS = {
    "resident_bytes": ("resident_memory_bytes", "Memory of this process."),
    "memory_bytes": ("device_memory_bytes", "Memory of the device in use, by all."),
    "celsius": ("temperature_celsius", "Of the device."),
    "watts": ("power_watts", "Of the board or the GPU."),
}


def exposition(told: Mapping[str, Any], gauges: Gauges, *, lost: bool, replaced: int) -> str:
    """One scrape. `told`: the page's statistics; `replaced`: frames that slow viewers did not get."""
    cameras = [({"camera": gauge.name}, gauge) for gauge in gauges.cameras]
    lines = [*_of_cameras(cameras, told["cameras"]), *_of_all(told, lost=lost, replaced=replaced)]
    return "\n".join([*lines, *_histogram(cameras)]) + "\n"


def _of_cameras(cameras: Sequence[tuple[Labels, CameraGauge]], rates: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What each camera has its own number of."""
    both = [(labels, gauge, rate) for (labels, gauge), rate in zip(cameras, rates, strict=True)]
    frames = [(labels, gauge.frames) for labels, gauge, _ in both]
    yield from _family("frames_total", "counter", "Frames whose joints are known.", frames)
    for name, words in COUNTS.items():
        counts = [(labels, int(rate["counts"].get(name, 0))) for labels, _, rate in both]
        yield from _family(f"{name}_total", "counter", words, counts)
    persons = [(labels, gauge.persons) for labels, gauge, _ in both]
    yield from _family("persons", "gauge", "Persons in the last frame.", persons)
    ages = [(labels, float(rate["age_s"])) for labels, _, rate in both if rate["age_s"] is not None]
    yield from _family("frame_age_seconds", "gauge", "Since the last result.", ages)


def _of_all(told: Mapping[str, Any], *, lost: bool, replaced: int) -> Iterator[str]:
    """What is one number; what the machine does not tell has no sample."""
    yield from _family("viewers", "gauge", "Pages that look now.", [({}, int(told["viewers"]))])
    words = "Frames that slow viewers did not get."
    yield from _family("viewer_dropped_total", "counter", words, [({}, replaced)])
    yield from _family("device_lost", "gauge", "1 when the device is lost.", [({}, int(lost))])
    for name, (family, meaning) in READINGS.items():
        yield from _family(family, "gauge", meaning, [({}, value) for value in (told[name],) if value is not None])


def _family(name: str, kind: str, words: str, samples: Iterable[tuple[Labels, float]]) -> Iterator[str]:
    yield f"# HELP sdk_live_{name} {words}"
    yield f"# TYPE sdk_live_{name} {kind}"
    for labels, value in samples:
        yield f"sdk_live_{name}{_labels(labels)} {value!r}"


def _histogram(cameras: Iterable[tuple[Labels, CameraGauge]]) -> Iterator[str]:
    name = "sdk_live_latency_seconds"
    yield f"# HELP {name} From a frame's capture to its joints."
    yield f"# TYPE {name} histogram"
    bounds = [f"{bound / 1e3:g}" for bound in BUCKETS_MS] + ["+Inf"]
    for labels, gauge in cameras:
        for bound, count in zip(bounds, accumulate(gauge.buckets), strict=True):
            yield f"{name}_bucket{_labels({**labels, 'le': bound})} {count}"
        yield f"{name}_sum{_labels(labels)} {gauge.sum_ms / 1e3:g}"
        yield f"{name}_count{_labels(labels)} {sum(gauge.buckets)}"


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    escaped = {
        name: value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") for name, value in labels.items()
    }
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped.items()) + "}"
