"""A simulated camera whose joints are known, and the live page served over it in a thread, for tests."""

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sdk.errors import SdkError
from sdk.live.mailbox import Mailbox
from sdk.live.serving import Server, ServingOptions
from sdk.live.watching import Scene, Watch
from sdk.media.figures import rendered_clip
from sdk.media.videos import SourceFrame
from sdk.people.cameras import CameraPoses
from sdk.poses import Poses, ScoreScale
from sdk.skeletons import CROWDPOSE14, FACE68

SCALE = ScoreScale(0.3, 0.8)
AGES_S = 3600.0
TOKEN = "a-token_of-24-characters"


def poses_of(joints, skeleton, score=0.9, ids=True):  # N x K x 2
    joints = np.asarray(joints, np.float32)
    low, high = joints.min(axis=1), joints.max(axis=1)
    return Poses(
        keypoints=joints,
        scores=np.full(joints.shape[:2], score, np.float32),
        boxes=np.concatenate([low - 8, high + 8], axis=1),
        box_scores=np.full(len(joints), 0.95, np.float32),
        skeleton=skeleton,
        track_ids=np.arange(1, len(joints) + 1) if ids else None,
        timings_ms={"crop": 0.3, "network": 4.2, "decode": 0.1, "total": 4.8, "transfer": "none: on the host"},
    )


def scattered(size_hw, count=68):
    """68 joints, 24 pixels apart or more, at places that are no whole pixels."""
    rng = np.random.default_rng(11)
    rows = 6
    across = -(-count // rows)
    cell = np.array([size_hw[1] / (across + 1), size_hw[0] / (rows + 1)])
    grid = np.stack(np.meshgrid(np.arange(across), np.arange(rows)), axis=-1).reshape(-1, 2)[:count] + 1
    return (grid * cell + rng.uniform(-4, 4, (count, 2))).astype(np.float32)


class Camera:
    """Frames with known joints, `fps` a second and for ever, until `close`. `last`: what was given last, which stays so
    from `hold` on, until `go_on`. A trembling one tells its frames' own times, however late a busy machine is."""

    def __init__(
        self, *, fps=30.0, size_hw=(240, 320), cameras=1, kind="walk", frames=None, error=None, trembling_px=0.0
    ):
        self.fps, self.cameras, self.frames, self.error = fps, cameras, frames, error
        self.trembling_px, self._rng = trembling_px, np.random.default_rng(5)
        self.names = tuple(f"camera {camera}" for camera in range(cameras))
        self.skeleton = FACE68 if kind == "dots" else CROWDPOSE14
        self.last: dict[int, CameraPoses] = {}
        self._ended, self._goes_on, self._giving = threading.Event(), threading.Event(), threading.Lock()
        self._goes_on.set()
        if kind == "dots":
            self.clip = [(np.full((*size_hw, 3), 90, np.uint8), scattered(size_hw)[None])]
        else:
            self.clip = [(frame, joints[None]) for frame, joints in rendered_clip(3, 12, size_hw)]

    def __iter__(self):
        start = time.monotonic()
        for number in range(self.frames or 1 << 40):
            if self._ended.wait(max(0.0, start + number / self.fps - time.monotonic())):
                return
            picture, joints = self.clip[0 if self.trembling_px else number % len(self.clip)]
            joints = joints + self._rng.normal(0, self.trembling_px, joints.shape) if self.trembling_px else joints
            for camera in range(self.cameras):
                now = start + number / self.fps if self.trembling_px else time.monotonic()
                frame = SourceFrame(picture, number, 1e3 * (now - start), captured_s=now)
                result = CameraPoses(camera, self.names[camera], frame, poses_of(joints, self.skeleton))
                if not self._gives(result):
                    return
                yield result
        if self.error is not None:
            raise self.error

    def _gives(self, result):
        """Note it, once nobody holds the camera; False where it is closed meanwhile."""
        while not self._ended.is_set():
            self._goes_on.wait()
            with self._giving:
                if self._goes_on.is_set():
                    self.last[result.camera] = result
                    return True
        return False

    def hold(self):
        """Give nothing more, not even what is on its way, when this returns."""
        with self._giving:
            self._goes_on.clear()

    def go_on(self):
        self._goes_on.set()

    def close(self):
        self._ended.set()
        self._goes_on.set()

    def watch(self, folder=Path("recordings"), **options):
        scene = Scene(
            names=self.names,
            skeleton=self.skeleton,
            scale=SCALE,
            engine="simulated",
            **{"smoothing": 0.0, **options},
            device="cpu",
            folder=folder,
        )
        return Watch(self, scene, close=self.close)


@dataclass
class Served:
    watch: Watch
    server: Server
    thread: threading.Thread
    errors: list[BaseException]

    def outwait_the_silent(self) -> None:
        """Let ages pass for the one viewer who has been silent for longest."""
        silent = max(self.watch._viewers._mailboxes, key=Mailbox.silent_s)
        silent._clock = lambda: time.monotonic() + AGES_S

    @property
    def url(self) -> str:
        return self.server.address.url

    @property
    def port(self) -> int:
        return self.server.address.port

    def wait(self, seconds=10.0):
        self.thread.join(seconds)
        assert not self.thread.is_alive(), "the server goes on"


@contextmanager
def served(watch, **options: Any):
    """The page over `watch`, on a free port."""
    server = Server(watch, ServingOptions(**{"port": 0, **options}))
    started, errors = threading.Event(), []

    def run():
        try:
            server.run(lambda _: started.set())
        except SdkError as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(20), errors
    page = Served(watch, server, thread, errors)
    try:
        yield page
    finally:
        server.stop()
        page.wait()
