"""`sdk predict` on small pictures, and what it leaves behind.

assert predict(small_engine, photos, "--jsonl", tmp_path / "p.jsonl") == 0
lines_of(tmp_path / "p.jsonl"), names_in(tmp_path)
"""

import json

import numpy as np

from sdk.cli import main


def noise(seed, size_hw=(90, 120)):
    import cv2

    small = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return cv2.resize(small, size_hw[::-1], interpolation=cv2.INTER_CUBIC)


def write_photos(folder):
    """0.png, 1.png and 2.png in a new folder."""
    import cv2

    folder.mkdir()
    for index in range(3):
        cv2.imwrite(str(folder / f"{index}.png"), noise(index))
    return folder


def write_clip(path):
    """Five frames, ten a second."""
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (120, 90))
    for index in range(5):
        writer.write(noise(index))
    writer.release()
    return path


def predict(engine, *words):
    return main(["predict", str(engine), "--device", "cpu", "--threads", "1", *map(str, words)])


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def names_in(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file()) if folder.exists() else []


def write(path, content):
    """A text, or anything else as JSON; the path."""
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path
