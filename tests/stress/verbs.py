"""Every verb with everything but what it takes, in each of its places for a file: an error in words, and no other."""

import contextlib
import io
import re
from collections import Counter
from importlib import import_module

import cv2
import numpy as np

from sdk import cli
from sdk.resources import bundled_engines
from tests.stress.findings import Ended, in_child
from tests.support.training import write_data

NAME = "body17-nano-128x128"
# {} is what is wrong; {engine}, {data}, {images}, {clip} and {out} are what is right.
COMMANDS = (
    "export {}",
    f"export {NAME} --recipe-file {{}} --weights random --output {{out}}/g.onnx",
    f"export {NAME} --weights {{}} --output {{out}}/g.onnx",
    f"export {NAME} --weights random --images {{}} --output {{out}}/g.onnx",
    f"export {NAME} --weights random --output {{}}",
    f"calibrate {NAME} --data {{}} --output {{out}}/t.json",
    f"calibrate {NAME} --data {{data}} --boxes {{}} --output {{out}}/t.json",
    f"calibrate {NAME} --data {{data}} --images 2 --output {{}}",
    "build-engine --onnx {} --precision fp32 --compiler none --output {out}/e",
    "build-engine --rebuild {} --compiler none --output {out}/e",
    f"build-engine {NAME} --weights random --precision int8 --calibration {{}} --compiler none --output {{out}}/e",
    f"build-engine {NAME} --weights random --precision fp32 --compiler none --output {{}}",
    "inspect {}",
    "predict {} {clip} --device cpu",
    "predict {engine} {} --device cpu",
    "predict {engine} {images} --device cpu --boxes {}",
    "predict {engine} {images} --device cpu --detector {}",
    "predict {engine} {images} --device cpu --save {}",
    "predict {engine} {images} --device cpu --coco {}",
    "predict {engine} {images} --device cpu --jsonl {}",
    "verify {} --dataset custom --annotations {data} --images {images} --output {out}/v",
    "verify {engine} --dataset custom --annotations {} --images {images} --output {out}/v",
    "verify {engine} --dataset custom --annotations {data} --images {} --output {out}/v",
    "verify {engine} --dataset custom --annotations {data} --images {images} --detections {} --output {out}/v",
    "verify {engine} --dataset custom --annotations {data} --images {images} --samples 5 --output {}",
    "benchmark {} --device cpu --seconds 0.01 --persons 1 --batch 1 --frame 64x64",
    "benchmark --compare {} {}",
    f"train {NAME} --train {{}} --val {{data}} --images {{images}} --output {{out}}/r --epochs 1",
    f"train {NAME} --train {{data}} --val {{data}} --images {{images}} --settings {{}} --output {{out}}/r",
    f"train {NAME} --train {{data}} --val {{data}} --images {{images}} --weights {{}} --output {{out}}/r --epochs 1",
    "models {}",
)


def _wrong(folder):
    """Name -> path of what no verb wants."""
    contents = {
        "empty": b"",
        "binary": np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes(),
        "text": b"this is some text\n" * 50,
        "deep": b"[" * 100_000,
        "digits": b"[" + b"9" * 5000 + b"]",
        "list": b"[]",
        "table": b"{}",
        "numbers": b'{"images": [1], "annotations": 2, "categories": null, "format": []}',
        "zip": b"PK\x03\x04" + b"\0" * 500,
        "pickle": b"\x80\x02cos\nsystem\n.",
    }
    wrong = {"absent": folder / "absent", "long name": folder / ("x" * 300), "a folder": folder / "empty-folder"}
    wrong["a folder"].mkdir()
    wrong["a loop of links"] = folder / "loop"
    wrong["a loop of links"].symlink_to("loop")
    for name, content in contents.items():
        for ending in ("json", "onnx", "toml", "pth", "csv", "jpg", "mp4"):
            wrong[f"{name}.{ending}"] = folder / f"wrong-{name}.{ending}"
            wrong[f"{name}.{ending}"].write_bytes(content)
    return wrong


def verbs(amount, rng, folder, findings):
    """So many commands out of all that there are, each in a child of its own that has imported already."""
    for name in ("torch", "onnx", "onnxruntime", "sdk.training.trainer", "sdk.toolchain.build", "sdk.evaluate.verify"):
        with contextlib.suppress(ImportError):
            import_module(name)
    wrong, counts = _wrong(folder), Counter()
    right = folder / "right"
    data = write_data(right, 2)
    writer = cv2.VideoWriter(str(right / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 64))
    for _ in range(3):
        writer.write(np.zeros((64, 64, 3), np.uint8))
    writer.release()
    places = {"engine": next(iter(bundled_engines())), "data": data, "images": right, "clip": right / "clip.avi"}
    places["out"] = folder / "out"
    every = [(command, name) for command in COMMANDS for name in wrong]
    for choice in rng.permutation(len(every))[:amount]:
        command, name = every[choice]
        words = [wrong[name] if word == "{}" else word.format(**places) for word in command.split()]
        found, _ = in_child(_run, [str(word) for word in words])
        status, said = (Ended, found.how) if isinstance(found, Ended) else found
        told = f"{command.replace('{}', name)}: {said[-250:]}"
        if status is Ended:
            findings.add("a command ended its process", told)
        elif "Traceback" in said or "this is a fault of the SDK" in said:
            error = re.search(r"(\w+): [^\n]*this is a fault", said)
            findings.add(f"{command.split()[0]}: {error.group(1) if error else 'a traceback'}", told)
        elif status not in (0, 1, 2):
            findings.add("a status that is none", told)
        counts[status] += 1
    return f"{sum(counts.values())} of {len(every)} commands; how often they ended with which status: {dict(counts)}"


def _run(words):
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            status = cli.main(words)
        except SystemExit as end:  # argparse's own
            status = end.code
        except BaseException as error:  # noqa: BLE001 (what it is, is the question)
            return 99, f"Traceback: {type(error).__name__}: {error}"
    return status, said.getvalue()
