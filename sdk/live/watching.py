"""The pipeline behind the page, in threads of its own: it takes what the cameras give, measures, hands on, records,
and does what the page's controls say. It knows no socket.

    watch = Watch(cameras, Scene(names=("0",), skeleton=..., scale=..., engine="body", device="cpu"))
    with watch.running(viewers): ...

Stopped, it takes nothing: live sources drop, files wait. At the end `on_end` is called; where the cameras raised,
`error` says what.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Any

from sdk import __version__
from sdk.errors import DeviceLostError, InputError, SdkError
from sdk.live.gauges import Gauges
from sdk.live.publishing import Publisher
from sdk.live.recording import Recorder
from sdk.live.results import times_of
from sdk.live.sensors import Sensors
from sdk.live.steadying import MIDDLE, Steady
from sdk.live.viewers import Viewers
from sdk.live.wire import look_of, text_message
from sdk.people.cameras import CameraPoses
from sdk.poses import ScoreScale
from sdk.skeletons import Skeleton

__all__ = ["Scene", "Watch"]

log = logging.getLogger(__name__)
TELL_S = 0.5  # between two statistics


@dataclass(frozen=True)
class Scene:
    """What does not change while the page is open."""

    names: tuple[str, ...]
    skeleton: Skeleton
    scale: ScoreScale
    engine: str
    device: str
    folder: Path = field(default_factory=lambda: Path("recordings"))
    counts: Callable[[], Iterable[dict[str, int]]] = tuple  # of each source: dropped, late, broken, reconnections
    live: tuple[bool, ...] = ()  # of each source: what came while all was stopped is not shown
    smoothing: float = MIDDLE  # how strongly joints are held steady at the start, 0 to 1
    width: int = 1280
    quality: int = 80


class Watch:
    """One run over `results`, which are taken in a thread. `close`: ends a wait for the next of them."""

    def __init__(
        self, results: Iterable[CameraPoses], scene: Scene, *, close: Callable[[], None] = lambda: None
    ) -> None:
        self.scene = scene
        self.gauges = Gauges(scene.names)
        self.error: Exception | None = None
        self.on_end: Callable[[], None] = lambda: None  # called in the pipeline's thread
        self._results, self._close = results, close
        self._steady = Steady(len(scene.names), scene.scale.fair, scene.smoothing)
        self._since_s = 0.0  # when it was started last
        self._go, self._leaving = Event(), Event()
        self._go.set()
        self._ended = False
        self._viewers: Viewers | None = None
        self._recorder = Recorder(scene.folder, scene.names, self._tell_state)

    @property
    def lost(self) -> bool:
        """Whether the device is lost, and the process with it."""
        return isinstance(self.error, DeviceLostError)

    def health(self) -> str:
        """'running', 'stopped' by a control, 'ended' with its sources, 'failed', or 'lost' with its device."""
        if self.error is not None:
            return "lost" if self.lost else "failed"
        if self._ended:
            return "ended"
        return "running" if self._go.is_set() else "stopped"

    @contextmanager
    def running(self, viewers: Viewers) -> Iterator[Watch]:
        """The threads, as long as the block runs; a recording that is on is finished."""
        self._viewers = viewers
        with ExitStack() as stack:
            publisher = stack.enter_context(
                Publisher(viewers, self.gauges, width=self.scene.width, quality=self.scene.quality)
            )
            self._publisher = publisher
            self._sensors = stack.enter_context(Sensors(self.scene.device))
            stack.enter_context(self._recorder)
            for name, work in (("pipeline", self._take_all), ("teller", self._tell)):
                thread = Thread(target=work, name=f"sdk-live-{name}", daemon=True)
                thread.start()
                stack.callback(thread.join)
            stack.callback(self._leave)
            viewers.post_text("hello", self._hello())
            self._tell_state()
            yield self

    def welcome(self) -> None:
        """Somebody has come: the last frames are shown once more."""
        self._publisher.again()

    def start(self) -> None:
        self._since_s = monotonic()
        self._go.set()
        self._tell_state()

    def stop(self) -> None:
        """Take no more frames, until `start`."""
        self._go.clear()
        self._tell_state()

    def record(self) -> None:
        self._recorder.start()

    def finish(self) -> None:
        self._recorder.finish()

    def smooth(self, strength: float) -> None:
        """Hold joints so steady, from the next frame on; 0 is not at all."""
        if not 0 <= strength <= 1:
            raise InputError(f"smoothing must be a number of 0 to 1 (got {strength})")
        self._steady.strength = strength
        self._tell_state()

    def statistics(self) -> dict[str, Any]:
        """All figures of now."""
        counts = list(self.scene.counts())
        cameras = [
            {**rate, "counts": counts[camera] if camera < len(counts) else {}}
            for camera, rate in enumerate(self.gauges.rates())
        ]
        viewers = 0 if self._viewers is None else len(self._viewers)
        return {
            "cameras": cameras,
            "stages": self.gauges.stages(),
            "viewers": viewers,
            "recording": self._recorder.state(),
            **self._sensors.readings(),
        }

    def _take_all(self) -> None:
        """The pipeline's thread."""
        iterator = iter(self._results)
        try:
            while self._may_go():
                result = next(iterator, None)
                if result is None:
                    break
                if not (self._is_live(result.camera) and result.frame.captured_s < self._since_s):
                    self._note(result)
        except SdkError as error:
            self.error = error
            log.error("the pipeline ended: %s", error)
        except Exception as error:
            self.error = error
            raise
        finally:
            self._ended = True
            self._tell_state()
            self.on_end()

    def _is_live(self, camera: int) -> bool:
        return camera < len(self.scene.live) and self.scene.live[camera]

    def _may_go(self) -> bool:
        """Wait while stopped; False when it is time to leave."""
        while not self._leaving.is_set():
            if self._go.wait(0.1):
                return True
        return False

    def _note(self, result: CameraPoses) -> None:
        poses = self._steady(result.camera, result.poses, 1e3 * result.frame.captured_s)
        result = replace(result, poses=poses)
        age_ms = 1e3 * (monotonic() - result.frame.captured_s)
        stages = times_of(result.poses)
        total = stages.pop("total", 0.0)
        self.gauges.note_result(result.camera, len(result.poses), age_ms, {"wait": max(0.0, age_ms - total), **stages})
        self._recorder.offer(result)
        self._publisher.offer(result)

    def _tell(self) -> None:
        while not self._leaving.wait(TELL_S):
            self._post("statistics", **self.statistics())

    def _leave(self) -> None:
        self._leaving.set()
        self._close()

    def _hello(self) -> str:
        scene = self.scene
        return text_message(
            "hello",
            version=__version__,
            engine=scene.engine,
            device=scene.device,
            cameras=list(scene.names),
            look=look_of(scene.skeleton, scene.scale),
        )

    def _tell_state(self) -> None:
        self._post(
            "state",
            running=self._go.is_set(),
            ended=self._ended,
            lost=self.lost,
            error=None if self.error is None else str(self.error),
            recording=self._recorder.state(),
            smoothing=self._steady.strength,
        )

    def _post(self, kind: str, **told: Any) -> None:
        if self._viewers is not None:
            self._viewers.post_text(kind, text_message(kind, **told))
