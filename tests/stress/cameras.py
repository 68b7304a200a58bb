"""A real RTSP server that stalls, dies, changes its size and sends garbage, and what `sdk.open_source` makes of it.

Needs Debian's gir1.2-gst-rtsp-server-1.0, python3-gi and gstreamer1.0-plugins-{base,good,ugly}. The camera's pictures
tell when they were captured, so every frame that is given is held to its age.
"""

import contextlib
import importlib.util
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median

from sdk.media.cv_feed import opencv_told
from sdk.media.opening import open_source
from sdk.media.sources import sources_from

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "/usr/bin/python3"
READ_S, MAX_AGE_S = 3.0, 1.0
BACK_S = 2.0
PAUSE_S = 4.0  # after the third attempt, in which a camera that was dead for 5 s comes back
ODDS = 3000  # one byte of so many is garbage: a wound in about every third frame
WATCHER = (
    "import signal, sys; from sdk import open_source\n"
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background job ignores Ctrl-C
    "with open_source(sys.argv[1], backend=sys.argv[2], read_timeout_s=3) as frames:\n"
    "    for frame in frames: print(frame.number, flush=True)\n"
)


def problem():
    """Why no camera can be simulated here; None where one can."""
    words = "import gi; gi.require_version('GstRtspServer', '1.0')"
    try:
        found = subprocess.run([PYTHON, "-c", words], check=False, capture_output=True, timeout=30)
    except OSError:
        return f"there is no {PYTHON}"
    return "gir1.2-gst-rtsp-server-1.0 and python3-gi are not installed" if found.returncode else None


class Camera:
    """The server in a process of its own."""

    def __init__(self):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.start()

    def start(self):
        words = [PYTHON, str(ROOT / "tests/support/rtsp_camera.py"), str(self.port)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def resize(self, text):
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        self.process.kill()
        self.process.wait()


class Proxy:
    """What lies between: it passes bytes on, refuses, cuts connections, or puts garbage into what the camera sends."""

    def __init__(self, port):
        self.port, self.mode = port, "pass"
        self.server = socket.create_server(("127.0.0.1", 0))
        self.address = f"rtsp://me:secret@127.0.0.1:{self.server.getsockname()[1]}/cam"
        self._open, self._random = set(), random.Random(0)
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self):
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self):
        while True:
            client, _ = self.server.accept()
            try:
                if self.mode == "refuse":
                    raise ConnectionRefusedError
                camera = socket.create_connection(("127.0.0.1", self.port), timeout=5)
            except OSError:
                client.close()
                continue
            camera.settimeout(None)
            self._open |= {client, camera}
            for ends in ((client, camera), (camera, client)):
                threading.Thread(target=self._pass, args=(*ends, ends[0] is camera), daemon=True).start()

    def _pass(self, source, target, from_camera):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if from_camera and self.mode == "garbage":
                    data = bytearray(data)
                    for _ in range(len(data) // ODDS + (self._random.random() < len(data) % ODDS / ODDS)):
                        data[self._random.randrange(len(data))] ^= self._random.randrange(1, 256)
                target.sendall(data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            self._open.discard(each)


class Watch(threading.Thread):
    """Takes frames and holds each to its age."""

    def __init__(self, address, backend, findings):
        super().__init__(daemon=True)
        self.source = open_source(address, backend=backend, read_timeout_s=READ_S, reconnect="always")
        self.findings, self.given, self.sizes, self.errors_s = findings, [], set(), []
        self.checks = True  # whether pictures are whole enough to be read
        self.start()

    def run(self):
        last = None
        for frame in self.source:
            now = time.monotonic()
            if last is not None and not (frame.number > last.number and frame.time_ms > last.time_ms):
                self.findings.add("numbers or times ran backwards", f"{last.number} {frame.number}")
            last = frame
            captured_s = captured(frame.picture, now)
            if self.checks and now - captured_s > MAX_AGE_S + 0.1:
                self.findings.add("a stale frame was given", f"{now - captured_s:.2f} s old")
            self.sizes.add(frame.picture.shape[:2])
            self.errors_s.append(abs(frame.captured_s - captured_s))
            self.given.append((now, captured_s))

    def back_after(self, moment, wait_s=90.0):
        """Seconds from `moment` to the first frame captured after it."""
        until = time.monotonic() + wait_s
        while time.monotonic() < until:
            found = next((now for now, captured_s in reversed(self.given[-50:]) if captured_s >= moment), None)
            if found is not None:
                return min(now for now, captured_s in self.given[-100:] if captured_s >= moment) - moment
            time.sleep(0.02)
        self.findings.add("no frame came back", f"within {wait_s:g} s")
        return wait_s


def captured(picture, now):
    stamp = sum(
        1 << bit
        for bit in range(24)
        if picture[16 * (16 * bit // picture.shape[1]) + 8, 16 * bit % picture.shape[1] + 8].mean() > 127
    )
    return stamp / 100 + (1 << 24) / 100 * round((now - stamp / 100) / ((1 << 24) / 100))


def cameras(amount, rng, folder, findings):
    """`amount` disconnections, stalls, deaths, sizes, garbage and interrupts, by PyAV."""
    return _attack("av", amount, findings) if importlib.util.find_spec("av") else "not run: PyAV is not installed"


def cameras_opencv(amount, rng, folder, findings):
    """The same by OpenCV, told to look briefly into streams as `sdk predict` and `sdk live` tell it."""
    with opencv_told(sources_from(["rtsp://127.0.0.1/cam"])):
        return _attack("opencv", amount, findings)


def _attack(backend, amount, findings):
    why = problem()
    if why:
        return f"not run: {why}"
    camera = Camera()
    proxy = Proxy(camera.port)
    try:
        return _one(backend, camera, proxy, amount, findings)
    finally:
        with contextlib.suppress(ProcessLookupError):
            camera.signal(signal.SIGCONT)
        camera.kill()


def _one(backend, camera, proxy, amount, findings):
    watch = Watch(proxy.address, backend, findings)
    watch.back_after(time.monotonic())
    back = {"cut": [], "refused": [], "stall": [], "short stall": [], "death": []}
    held = None
    for number in range(amount):
        proxy.cut()
        back["cut"].append(watch.back_after(time.monotonic()))
        if number == amount // 2:  # PyAV's decoders in ever new threads: 60 MiB at first, 100 after 50, 106 after 300
            held = _held()
    grown = [after - before for before, after in zip(held, _held(), strict=True)] if held else []
    if grown and (grown[0] > 2 or grown[1] > 3 or grown[2] > 30):
        findings.add("threads, files or MiB grew", grown)
    proxy.mode = "refuse"
    proxy.cut()
    time.sleep(8)
    proxy.mode = "pass"
    back["refused"].append(watch.back_after(time.monotonic(), 40))
    for kind, stop_s in (("short stall", 2.0), ("stall", 20.0 if amount < 100 else 60.0)):
        camera.signal(signal.SIGSTOP)
        time.sleep(stop_s)
        camera.signal(signal.SIGCONT)
        back[kind].append(watch.back_after(time.monotonic()))
    camera.kill()
    time.sleep(5)
    camera.start()
    back["death"].append(watch.back_after(time.monotonic()))
    if backend == "av":  # OpenCV fits every later picture to the first size
        for text in ("320x240", "800x608", "640x480"):
            camera.resize(text)
            time.sleep(2)
        if not {(240, 320), (608, 800), (480, 640)} <= watch.sizes:
            findings.add("a size was not taken over", watch.sizes)
    watch.checks = False
    proxy.mode = "garbage"
    time.sleep(10)
    proxy.mode = "pass"
    garbage = watch.back_after(time.monotonic(), 40)
    for kind, each in back.items():
        # a proxy takes connections that its camera refuses, so nobody sees that camera coming back: a pause is waited
        limit_s = BACK_S + (PAUSE_S if kind == "death" else 0)
        if each and max(each) > limit_s and kind != "refused":
            findings.add(f"later than {limit_s:g} s after a {kind}", f"{backend}: {max(each):.2f} s")
    watch.source.close()
    watch.join(10)
    ends = _interrupted(backend, camera, findings)
    counts = " ".join(f"{value} {name}" for name, value in watch.source.counts.to_dict().items())
    times = ", ".join(f"{kind} {median(each):.2f}/{max(each):.2f}" for kind, each in back.items())
    return (
        f"{counts}; back after s (median/most): {times}; garbage {garbage:.2f}; captured_s off by "
        f"{1e3 * median(watch.errors_s):.0f} ms; grown {grown}; Ctrl-C {ends}"
    )


def _held():
    return (
        threading.active_count(),
        len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20,
    )


def _interrupted(backend, camera, findings):
    """Ctrl-C to a program that watches, stalls and reconnects."""
    address, told = f"rtsp://127.0.0.1:{camera.port}/cam", []
    for state in ("running", "stalled", "reconnecting"):
        words = [sys.executable, "-c", WATCHER, address, backend]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, text=True)
        child.stdout.readline()
        if state != "running":
            camera.signal(signal.SIGSTOP) if state == "stalled" else camera.kill()
            time.sleep(1.0 if state == "stalled" else 5.0)
        began = time.monotonic()
        child.send_signal(signal.SIGINT)
        try:
            _, said = child.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            child.kill()
            findings.add("Ctrl-C did not end it", f"{backend}, {state}")
            continue
        told.append(f"{state} {time.monotonic() - began:.2f} s")
        if child.returncode not in (-signal.SIGINT, 130) or "KeyboardInterrupt" not in said:
            findings.add("Ctrl-C was no clean end", f"{backend}, {state}: {child.returncode} {said[-200:]}")
        if state == "stalled":
            camera.signal(signal.SIGCONT)
        elif state == "reconnecting":
            camera.start()
    return ", ".join(told)
