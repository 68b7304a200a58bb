"""What the live page costs: from a frame's arrival to its joints on the wire, where the camera is faster than the
pipeline, and what twenty viewers take from it.

    python benchmarks/live.py                       # all three, about thirteen minutes
    python benchmarks/live.py latency --seconds 30

The camera is simulated: rendered frames, 640x480, on time by the clock. Viewers are WebSocket clients in processes of
their own, which answer every frame as a page does. A line of JSON for each, the machine first. Exit 1 where a figure
that docs/live.md promises is missed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import numpy as np
from websockets.sync.client import connect

from sdk import Cameras
from sdk.evaluate.speed.machine import machine_facts
from sdk.live.sensors import Sensors
from sdk.live.serving import Server, ServingOptions
from sdk.live.watching import Scene, Watch
from sdk.live.wire import parsed_frame
from sdk.media.figures import rendered_clip
from sdk.media.videos import SourceFrame
from sdk.people.cameras import CameraPoses
from sdk.runtime.confidence import scale_from_recipe

SIZE_HW, FPS = (480, 640), 30.0
WARM_S = 2.0
OVERLOAD = 30  # times the seconds of the others
VIEWERS, ROUNDS = 20, 3
OVER_PROCESSING_MS, LOST_PERCENT = 5.0, 5.0  # what is promised


class Camera:
    """Rendered frames, `fps` a second by the clock, whoever takes them: live, so that a newer one overtakes."""

    is_live = True
    name = "camera"

    def __init__(self, fps: float) -> None:
        self.fps, self.shown, self.ended = fps, 0, threading.Event()
        self.clip = [frame for frame, _ in rendered_clip(3, 48, SIZE_HW)]

    def __iter__(self) -> Iterator[SourceFrame]:
        start = time.monotonic()
        while not self.ended.wait(max(0.0, start + self.shown / self.fps - time.monotonic())):
            now_s, picture = time.monotonic(), self.clip[self.shown % len(self.clip)]
            yield SourceFrame(picture, self.shown, 1e3 * (now_s - start), captured_s=now_s)
            self.shown += 1

    def close(self) -> None:
        self.ended.set()


class Page:
    """The live page over a simulated camera, served in a thread, the time of each estimate noted."""

    def __init__(self, fps: float) -> None:
        self.camera = Camera(fps)
        self.cameras = Cameras([self.camera], None, tracker=True)
        recipe = self.cameras.engine.manifest.recipe
        scene = Scene(("camera",), recipe.skeleton, scale_from_recipe(recipe), "bundled", self.cameras.device)
        self.watch = Watch(self._noted(), scene, close=self._close)
        self.server = Server(self.watch, ServingOptions(port=0, viewers=64))
        self.processing_ms: list[float] = []

    def __enter__(self) -> Page:
        started = threading.Event()
        self.thread = threading.Thread(target=self.server.run, args=(lambda _: started.set(),), daemon=True)
        self.thread.start()
        started.wait()
        while not self.frames:
            time.sleep(0.01)
        time.sleep(WARM_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.stop()
        self.thread.join()

    def _close(self) -> None:
        self.camera.close()
        self.cameras.close()

    def _noted(self) -> Iterator[CameraPoses]:
        for result in self.cameras:
            self.processing_ms.append(float(result.poses.timings_ms["total"]))
            yield result

    @property
    def frames(self) -> int:
        return self.watch.gauges.cameras[0].frames

    @property
    def port(self) -> int:
        return self.server.address.port


def viewer(port: int, seconds: float, told: Any) -> None:
    """A page's part of the protocol: every frame is answered. Tells how many came."""
    seen = 0
    with connect(f"ws://127.0.0.1:{port}/watch", compression=None, max_size=None) as socket:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            message = socket.recv()
            if isinstance(message, bytes):
                head, *_ = parsed_frame(message)
                socket.send(json.dumps({"do": "arrived", "camera": head["camera"]}))
                seen += 1
    told.put(seen)


def group(port: int, seconds: float, viewers: int, told: Any) -> None:
    threads = [threading.Thread(target=viewer, args=(port, seconds, told)) for _ in range(viewers)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()


def watched(page: Page, viewers: int, seconds: float) -> list[int]:
    """Frames that each of so many viewers saw within `seconds`; ten share a process."""
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    shares = [min(10, viewers - first) for first in range(0, viewers, 10)]
    running = [context.Process(target=group, args=(page.port, seconds, share, told)) for share in shares]
    for each in running:
        each.start()
    seen = [told.get(timeout=seconds + 60) for _ in range(viewers)]
    for each in running:
        each.join()
    return seen


def latency(seconds: float) -> dict[str, Any]:
    """From a frame's arrival until its message was handed to the socket, beside what the estimate itself took."""
    with Page(FPS) as page:
        watched(page, 1, seconds)
        sent = np.array([value for _, value in page.watch.gauges.samples("send")])
        processing = np.array(page.processing_ms[-len(sent) :])
    p50, p99 = np.percentile(sent, (50, 99)).tolist()
    spent50, spent99 = np.percentile(processing, (50, 99)).tolist()
    return {
        "frames": len(sent),
        "wire_ms": {"p50": round(p50, 2), "p99": round(p99, 2)},
        "processing_ms": {"p50": round(spent50, 2), "p99": round(spent99, 2)},
        "p50_over_processing_ms": round(p50 - spent50, 2),
        "p99_limit_ms": round(1e3 / FPS + spent99, 2),
        "met": bool(p50 - spent50 <= OVER_PROCESSING_MS and p99 <= 1e3 / FPS + spent99),
    }


def overload(seconds: float) -> dict[str, Any]:
    """A camera at twice the pipeline's speed, for thirty times the seconds: ten minutes by default.

    How old results are, and the memory, in the first and in the last tenth. A viewer looks; another never answers.
    """
    with Page(FPS) as page:
        pace = 1e3 / statistics.median(page.processing_ms)
    ages, memory = [], []
    silent = {"max_queue": 1, "close_timeout": 1, "ping_interval": None}
    with Page(2 * pace) as page, connect(f"ws://127.0.0.1:{page.port}/watch", **silent), Sensors("cpu") as sensors:
        looking = threading.Thread(target=watched, args=(page, 1, OVERLOAD * seconds))
        looking.start()
        first, shown = page.frames, page.camera.shown
        until = time.monotonic() + OVERLOAD * seconds
        while time.monotonic() < until:
            time.sleep(0.25)
            age = page.watch.gauges.rates()[0]["latency_ms"]
            ages.append(float("inf") if age is None else age["p99"])  # no result in ten seconds
            memory.append(sensors.readings()["resident_bytes"] / 2**20)
        worked, came = page.frames - first, page.camera.shown - shown
        looking.join()
    (old, older), (small, large) = _ends(ages), _ends(memory)
    return {
        "camera_fps": round(2 * pace, 1),
        "frames_that_came": came,
        "frames_worked_on": worked,
        "p99_age_ms": {"first tenth": old, "last tenth": older},
        "memory_mb": {"first tenth": small, "last tenth": large},
        "met": bool(older < 1.5 * old + 1e3 / FPS and large < 1.05 * small),
    }


def _ends(values: list[float]) -> tuple[float, float]:
    tenth = max(1, len(values) // 10)
    return round(statistics.median(values[:tenth]), 1), round(statistics.median(values[-tenth:]), 1)


def viewers(seconds: float) -> dict[str, Any]:
    """Frames that the pipeline works on, with no viewer and with twenty, in turns."""
    alone, together, seen = [], [], []
    with Page(FPS) as page:
        for _ in range(ROUNDS):
            alone.append(_frames_in(page, seconds))
            looking = threading.Thread(target=lambda: seen.extend(watched(page, VIEWERS, seconds + 5)))
            looking.start()
            while page.watch.statistics()["viewers"] < VIEWERS:
                time.sleep(0.05)
            together.append(_frames_in(page, seconds))
            looking.join()
    lost = 100 * (1 - sum(together) / sum(alone))
    return {
        "pipeline_fps": {
            "no viewer": round(statistics.mean(alone), 2),
            "20 viewers": round(statistics.mean(together), 2),
        },
        "lost_percent": round(lost, 2),
        "frames_a_second_at_a_viewer": round(statistics.median(seen) / (seconds + 5), 1),
        "met": bool(lost <= LOST_PERCENT),
    }


def _frames_in(page: Page, seconds: float) -> float:
    before, start = page.frames, time.monotonic()
    time.sleep(seconds)
    return (page.frames - before) / (time.monotonic() - start)


RUNS = {"latency": latency, "overload": overload, "viewers": viewers}


def main() -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", choices=[*RUNS, []], default=[])
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="of each measurement; the overload takes 30 times as long"
    )
    arguments = parser.parse_args()
    facts = machine_facts()
    print(json.dumps({name: facts[name] for name in ("processor", "cores", "load_1_minute", "busy", "packages")}))
    told = {}
    for what in arguments.what or RUNS:
        told[what] = RUNS[what](arguments.seconds)
        print(json.dumps({what: told[what]}), flush=True)
    return 0 if all(each["met"] for each in told.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
