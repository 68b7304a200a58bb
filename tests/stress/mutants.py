"""Damaged engines and damaged files: each is refused in words, or what it gives is what the undamaged one gives."""

import json
import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from sdk import PoseEstimator
from sdk.media.boxfile import boxes_from_file
from sdk.media.sources import Unreadable, read_image
from sdk.recipe import recipe_by_name, recipes_from_file
from sdk.resources import bundled_engines, bundled_weights, catalogue_folder
from sdk.toolchain.table import table_from_file
from sdk.training.dataset import PersonDataset
from sdk.training.label_files import LabelFile
from sdk.training.settings import settings_from_file
from tests.stress.findings import Ended, in_child, judged
from tests.support.training import write_data

RECIPE = "body17-nano-128x128"
BATCH = 50  # mutants a child
VALUES = (None, -1, 0, 1, 3, 1e308, -0.0, 10**30, "", "x", True, [], {}, [None], ["a"], [[0, 0]], {"kind": []})


def damaged(data, rng):
    """Bytes with a few of them changed, cut, doubled, moved, or grown."""
    data, kind = bytearray(data), rng.integers(6)
    if not data:
        return b"\0"
    first, last = sorted(int(place) for place in rng.integers(0, len(data), 2))
    if kind == 0:
        for place in rng.integers(0, len(data), int(rng.integers(1, 9))):
            data[place] = rng.integers(256)
    elif kind == 1:
        del data[first:]
    elif kind == 2:
        del data[first : first + int(rng.integers(1, 200))]
    elif kind == 3:
        data[first:first] = data[last : last + int(rng.integers(1, 200))]
    elif kind == 4:
        data[first] ^= 1 << int(rng.integers(8))
    else:
        data[first:first] = bytes(rng.choice(np.frombuffer(b'[]{}"\\,:.0123456789e-\n\0\xff', np.uint8), 9))
    return bytes(data)


def altered_json(document, rng):
    """A document with one value changed, lost, or under another key."""
    document = json.loads(json.dumps(document))
    places = list(_places(document))
    table, key = places[rng.integers(len(places))]
    deed = rng.integers(4)
    if deed == 0:
        del table[key]
    elif deed == 1 and isinstance(table, dict):
        table[f"{key}x"] = table.pop(key)
    else:
        table[key] = VALUES[rng.integers(len(VALUES))]
    return json.dumps(document).encode()


def _places(value):
    for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(item, (dict, list)) and item:
            yield from _places(item)


def engines(amount, rng, folder, findings):
    """Mutants of the bundled engine, opened and run."""
    whole, counts = next(iter(bundled_engines().values())), Counter()
    frame = rng.integers(0, 256, (200, 150, 3), np.uint8)
    for first in range(0, amount, BATCH):
        seed = int(rng.integers(2**31))
        work = _open_many, whole, folder, frame, min(BATCH, amount - first), seed
        found, _ = in_child(*work)
        if isinstance(found, Ended):
            findings.add("a child that opened damaged engines ended", f"{found.how} (seed {seed})")
            continue
        counts.update(found[0])
        for kind, example in found[1]:
            findings.add(kind, example)
    return f"{amount} damaged engines: {dict(counts)}"


def _open_many(whole, folder, frame, count, seed):
    rng, counts, found = np.random.default_rng(seed), Counter(), []
    with PoseEstimator(whole, device="cpu", threads=1) as estimate:
        good = estimate(frame)
    manifest = json.loads((whole / "engine.json").read_text())
    for number in range(count):
        place = folder / f"{seed}-{number}.fp32"
        shutil.copytree(whole, place)
        target = "engine.json" if rng.random() < 0.6 else "network.onnx"
        data = (place / target).read_bytes()
        by_value = target == "engine.json" and rng.random() < 0.7
        (place / target).write_bytes(altered_json(manifest, rng) if by_value else damaged(data, rng))
        same = (place / target).read_bytes() == data
        how, answer = judged(_poses_of, place, frame)
        if how == "done":
            equal = np.array_equal(answer.keypoints, good.keypoints) and np.array_equal(answer.scores, good.scores)
            if target == "network.onnx" and not same:
                found.append(("an altered graph was run", f"seed {seed}, {number}"))
            elif not (np.isfinite(answer.keypoints).all() and np.isfinite(answer.scores).all() and len(answer) == 1):
                found.append(("an altered manifest gives poses that are none", f"seed {seed}, {number}"))
            how = "run, same poses" if equal else "run, poses of another valid recipe"
        elif how == "untyped":
            found.append(("an exception that is no SdkError", f"{answer} (engine, seed {seed}, {number})"))
        counts[how] += 1
        shutil.rmtree(place)
    return counts, found


def _poses_of(place, frame):
    with PoseEstimator(place, device="cpu", threads=1) as estimate:
        return estimate(frame)


def files(amount, rng, folder, findings):
    """Mutants of all the other files that the SDK reads."""
    kinds, counts = _kinds(folder), Counter()
    for name, (_, _) in kinds.items():
        for _first in range(0, amount // len(kinds) + 1, BATCH):
            seed = int(rng.integers(2**31))
            count = min(BATCH, amount // len(kinds) + 1 - _first)
            found, _ = in_child(_read_many, kinds[name], folder, count, seed)
            if isinstance(found, Ended):
                findings.add(f"a child that read damaged files ({name}) ended", f"{found.how} (seed {seed})")
                continue
            counts.update(found[0])
            for example in found[1]:
                findings.add("an exception that is no SdkError", f"{name}: {example}")
    return f"{sum(counts.values())} damaged files of {len(kinds)} kinds: {dict(counts)}"


def _kinds(folder):
    """name -> (a whole file, what reads it)."""
    picture = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    whole = folder / "whole"
    data = write_data(whole, 3)
    (whole / "boxes.csv").write_text("file,x1,y1,x2,y2,score,frame\n" + "a.jpg,1,2,30,40,0.5,0\n" * 5)
    (whole / "settings.toml").write_text("epochs = 3\nbatch = 4\nlearning_rate = 0.001\n")
    for ending in ("png", "jpg", "bmp", "webp", "tiff", "ppm"):
        cv2.imwrite(str(whole / f"a.{ending}"), picture)
    kinds = {
        "boxes, json": (data, boxes_from_file),
        "boxes, csv": (whole / "boxes.csv", boxes_from_file),
        "annotations": (data, _Annotations(whole)),
        "recipes": (catalogue_folder("engines") / f"{RECIPE}.toml", recipes_from_file),
        "settings": (whole / "settings.toml", settings_from_file),
        "calibration table": (catalogue_folder("calibration") / f"{RECIPE}.json", table_from_file),
        "checkpoint": (bundled_weights(RECIPE), _checkpoint),
    }
    return kinds | {f"picture, {ending}": (whole / f"a.{ending}", _picture) for ending in ("png", "jpg", "bmp", "webp")}


class _Annotations:
    def __init__(self, pictures):
        self.pictures, self.recipe = pictures, recipe_by_name(RECIPE)

    def __call__(self, path):
        return PersonDataset([LabelFile(path, self.pictures)], self.recipe)


def _checkpoint(path):
    from sdk.networks.reader import checkpoint_from_file

    return checkpoint_from_file(path)


def _picture(path):
    found = read_image(path)
    assert isinstance(found, Unreadable) or found.dtype == np.uint8


def _read_many(kind, folder, count, seed):
    (whole, read), rng, counts, found = kind, np.random.default_rng(seed), Counter(), []
    data = whole.read_bytes()
    for number in range(count):
        by_value = whole.suffix == ".json" and rng.random() < 0.5
        path = Path(folder) / f"{seed}-{number}{whole.suffix}"
        path.write_bytes(altered_json(json.loads(data), rng) if by_value else damaged(data, rng))
        how, answer = judged(read, path)
        counts[how] += 1
        if how == "untyped":
            found.append(f"{answer} (seed {seed}, {number})")
        path.unlink()
    return counts, found
