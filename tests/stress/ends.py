"""Ends of programs and of engines: rebuilds under readers, daemon threads at the end, signals at any moment."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

from sdk import PoseEstimator
from sdk.manifest import open_engine
from sdk.resources import bundled_engines
from sdk.toolchain.engine import write_engine
from tests.stress.findings import judged

ROOT = Path(__file__).resolve().parents[2]
ENV = {**os.environ, "PYTHONPATH": str(ROOT)}
PAUSE_S = 0.3  # between rebuilds, each of which takes some hundredths: a real one takes seconds
DAEMONS = """
import threading, time, numpy as np
from sdk import PoseEstimator, ops
estimate = PoseEstimator(device="cpu", threads=1)
frame = np.zeros((300, 300, 3), np.uint8)
def call(number):
    while True:
        if number % 3 == 0: estimate(frame, [[0, 0, 99, 99]] * 8)
        elif number % 3 == 1: estimate.submit(frame, [[0, 0, 99, 99]]).result()
        else: ops.crop(frame, np.zeros((8, 2, 3), np.float32), (256, 192), mean=(0, 0, 0), std=(1, 1, 1))
for number in range(6): threading.Thread(target=call, args=(number,), daemon=True).start()
time.sleep({pause})
"""


def rebuilds(amount, rng, folder, findings):
    """One process rebuilds an engine in place, this one opens and runs it."""
    place = folder / "engine"
    whole = open_engine(next(iter(bundled_engines().values())))
    files = {name: (whole.folder / name).read_bytes() for name in whole.manifest.files}
    write_engine(place, files, lambda hashes: whole.manifest)
    context = multiprocessing.get_context("fork")
    stop, built = context.Event(), context.Value("i", 0)

    def build():
        while not stop.is_set():
            write_engine(place, files, lambda hashes: whole.manifest)
            built.value += 1
            time.sleep(PAUSE_S)

    builder = context.Process(target=build)
    builder.start()
    frame, openings = rng.integers(0, 256, (200, 150, 3), np.uint8), 0
    for number in range(amount):
        how, answer = judged(_opened, place, frame if number % 10 == 0 else None)
        openings += 1
        if how != "done":
            findings.add("a reader met no engine during a rebuild", answer)
    stop.set()
    builder.join()
    left = sorted(path.name for path in folder.iterdir() if path.name != "engine")
    if left:
        findings.add("rebuilds left something", left)
    return f"{openings} openings during {built.value} rebuilds"


def _opened(place, frame):
    if frame is None:
        return open_engine(place)
    with PoseEstimator(place, device="cpu", threads=1) as estimate:
        return estimate(frame)


def exits(amount, rng, folder, findings):
    """Programs that end while six daemon threads are inside an estimator and the ops."""
    for _ in range(amount):
        code = DAEMONS.format(pause=float(rng.uniform(0, 0.3)))
        run = subprocess.run([sys.executable, "-c", code], env=ENV, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            findings.add("a program did not end well", f"status {run.returncode}: {run.stderr[-200:]}")
    return f"{amount} programs ended with 6 daemon threads inside"


def signals(amount, rng, folder, findings):
    """`sdk predict` on a video and `sdk build-engine` in place, stopped or killed at any moment, then run again."""
    import cv2

    clip = folder / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"MJPG"), 10, (160, 120))
    for _ in range(600):
        writer.write(rng.integers(0, 256, (120, 160, 3), np.uint8))
    writer.release()
    bundled = next(iter(bundled_engines()))
    predict = ["predict", bundled, str(clip), "--device", "cpu", "--coco", "out/r.json", "--jsonl", "out/p.jsonl"]
    build = ["build-engine", "body17-nano-128x128", "--precision", "fp16", "--weights", "random"]
    build += ["--compiler", "none", "--output", "out/e"]
    statuses, out = Counter(), folder / "out"
    for number in range(amount):
        words = predict if number % 2 else build
        how = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)[int(rng.integers(4))]
        status, said = _stopped(words, folder, how, float(rng.uniform(0.8, 4.0)))
        statuses[status] += 1
        left = [path.name for path in out.glob("*") if ".part" in path.name or "partial" in path.name]
        unfinished = sorted(set(left) - {"p.jsonl.part"})
        if how != signal.SIGKILL and (unfinished or "Traceback" in said or status not in (0, 1, -how)):
            findings.add(f"{words[0]} after {how.name}", f"status {status}, left {unfinished}: {said[-300:]}")
    for words in (predict, build):
        status, said = _stopped(words, folder, None, 0)
        if status != 0:
            findings.add(f"{words[0]} after killed runs", said[-300:])
    left = sorted(path.name for path in out.iterdir())
    if left != ["e", "p.jsonl", "r.json"]:
        findings.add("killed runs left what the next run did not sweep", left)
    how, answer = judged(open_engine, out / "e")
    if how != "done":
        findings.add("no engine after killed rebuilds", answer)
    return f"{amount} runs stopped or killed; how often they ended with which status: {dict(statuses)}"


def _stopped(words, folder, how, after_s):
    """Status and stderr of a run that is sent a signal after a while, or none."""
    program = "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    program += "from sdk import cli\nsys.exit(cli.main())"
    command = [sys.executable, "-c", program, *words]
    run = subprocess.Popen(command, cwd=folder, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if how is not None:
        time.sleep(after_s)
        run.send_signal(how)
    _, said = run.communicate(timeout=300)
    return run.returncode, said
