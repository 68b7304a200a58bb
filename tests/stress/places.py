"""What lies outside: bombs, disks that fill up, servers that lie; and the sanitizers over the native ops."""

import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from sdk.errors import OutputError
from sdk.files import whole_file, write_text
from sdk.manifest import open_engine
from sdk.media.boxfile import boxes_from_file
from sdk.media.sources import Unreadable, read_image
from sdk.networks import download
from sdk.networks.weights import weights_file, weights_path
from sdk.recipe import Weights, recipe_by_name, recipes_from_file
from sdk.resources import CACHE_VARIABLE, bundled_engines
from sdk.toolchain.engine import write_engine
from tests.stress.findings import Ended, in_child, judged
from tests.support.full_disk import full_disk
from tests.support.hostile_server import HostileServer, answer

ROOT = Path(__file__).resolve().parents[2]
BOMB_MIB = 200  # beyond what the child had before
RECIPE = recipe_by_name("body14-nano-128x128")


def bombs(amount, rng, folder, findings):
    """Small files that ask for much: what each costs, in a child of its own."""
    made = list(_bombs(folder))
    _, floor = in_child(int)
    worst = (0.0, "none")
    for name, path, read in made * amount:
        (found, peak) = in_child(judged, read, path)
        if isinstance(found, Ended):
            findings.add("a bomb went off", f"{name}: {found.how}")
            continue
        worst = max(worst, (peak - floor, name))
        if found[0] == "untyped":
            findings.add("an exception that is no SdkError", f"{name}: {found[1]}")
        if found[0] == "done" and not isinstance(found[1], Unreadable):
            findings.add("a bomb was taken", name)
        if peak - floor > BOMB_MIB:
            findings.add("a bomb cost memory", f"{name}: {peak - floor:.0f} MiB for {path.stat().st_size} bytes")
    return f"{len(made)} bombs, the dearest {worst[0]:.0f} MiB ({worst[1]})"


def _bombs(folder):
    """(name, file, what reads it); each harmless to what the SDK builds on, as its bounds stand before it."""
    texts = {
        "deep lists": "[" * 1_000_000,
        "deep tables": '{"a":' * 200_000,
        "a long number": f"[{'9' * 1_000_000}]",
        "a key twice": '{"images": [], "images": []}',
        "empty lists": f"[{'[],' * 300_000}[]]",
        "a long text": json.dumps(["x" * 1_000_000]),
    }
    for name, text in texts.items():
        path = folder / f"{name}.json"
        path.write_text(text)
        yield name, path, boxes_from_file
    for name, text in {
        "deep TOML": f"a = {'[' * 200_000}",
        "a key of many parts": f"{'.'.join(['a'] * 400_000)} = 1",
        "a long TOML number": f"a = {'9' * 500_000}",
    }.items():
        path = folder / f"{name}.toml"
        path.write_text(text)
        yield name, path, recipes_from_file
    path = folder / "cell.csv"
    path.write_text("file,x1,y1,x2,y2\n" + "a" * 3_000_000)
    yield "a long cell", path, boxes_from_file
    for side in (16_385, 60_000):
        path = folder / f"{side}.png"
        path.write_bytes(_png(side))
        yield f"a PNG of {side} pixels a side", path, read_image
    yield "a folder of zeros without end", _device(folder), _manifest_of
    path = folder / "zeros.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("end2end.onnx", b"\0" * (1 << 29))
    yield "a zip of zeros", path, _graph


def _png(side):
    """Rows of nothing, one bit a pixel: some kilobytes."""
    packer, row = zlib.compressobj(9), b"\0" * (1 + (side + 7) // 8)
    body = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _device(folder):
    place = folder / "endless"
    place.mkdir()
    (place / "engine.json").symlink_to("/dev/zero")
    return place


def _manifest_of(place):
    return open_engine(place)


def _graph(path):
    from sdk.toolchain.graph_files import graph_file

    return graph_file(path)


def disks(amount, rng, folder, findings):
    """Disks that are full after any number of bytes: files and engines are whole, as before, or not there."""
    whole = open_engine(next(iter(bundled_engines().values())))
    files = {name: (whole.folder / name).read_bytes() for name in whole.manifest.files}
    size, counts = sum(map(len, files.values())), Counter()
    for number in range(amount):
        place, rooms = folder / "e", int(rng.integers(0, size + 5000))
        found, _ = in_child(_on_a_full_disk, folder, files, whole.manifest, rooms, number % 3)
        if isinstance(found, Ended) or found[0] == "untyped":
            findings.add("a full disk", f"{found} (room for {rooms} bytes)")
            continue
        counts[found[0]] += 1
        left = sorted(path.name for path in folder.iterdir())
        if set(left) - {"e", "report.json", "lines.txt"}:
            findings.add("a full disk left something", left)
        if place.exists():
            how, told = judged(open_engine, place)
            if how != "done":
                findings.add("a full disk broke an engine", told)
        report = folder / "report.json"
        if report.exists() and len(report.read_text()) not in (len(str(list(range(20_000)))),):
            findings.add("a full disk left half a file", len(report.read_text()))
    return f"{amount} writes on disks that filled up: {dict(counts)}"


def _on_a_full_disk(folder, files, manifest, room, kind):
    with full_disk(room):
        if kind == 0:
            return judged(write_engine, folder / "e", files, lambda hashes: manifest)[0], None
        if kind == 1:
            return judged(write_text, folder / "report.json", str(list(range(20_000))))
        return judged(_lines, folder / "lines.txt")


def _lines(path):
    with whole_file(path) as temporary, temporary.open("w") as file:
        for number in range(50_000):
            file.write(f"{number}\n")
    return OutputError.__name__


def server(amount, rng, folder, findings):
    """Answers of a server, damaged at any byte: the file comes whole, or an error in words."""
    download.ANSWER_S, download.ATTEMPTS, counts = 2.0, 2, Counter()
    os.environ[CACHE_VARIABLE] = str(folder)
    data = rng.integers(0, 256, 20_000, np.uint8).tobytes()
    digest = hashlib.sha256(data).hexdigest()
    recipe = replace(RECIPE, weights=Weights(f"https://download.test/net-{digest[:8]}.pth", digest[:8]))
    whole = answer(200, data, Content_Length=len(data))
    for _ in range(amount):
        said = bytearray(whole)
        for place in rng.integers(0, 120 if rng.random() < 0.8 else len(said), int(rng.integers(1, 6))):
            said[place] = rng.integers(256)
        with HostileServer(bytes(said), whole if rng.random() < 0.3 else bytes(said)) as hostile:
            how, told = judged(lambda opener: weights_file(recipe, opener=opener, pause_s=0.0), hostile.opener)
        counts[how] += 1
        if how == "untyped":
            findings.add("an exception that is no SdkError", told)
        elif how == "done" and weights_path(recipe).read_bytes() != data:
            findings.add("an altered download was taken", bytes(said[:200]))
        shutil.rmtree(folder / "weights", ignore_errors=True)
    return f"{amount} damaged answers: {dict(counts)}"


def sanitizers(amount, rng, folder, findings):
    """The native ops under the address and undefined-behaviour sanitizers, for so many seconds."""
    if shutil.which("g++") is None:
        return "skipped: no g++ here"
    run = subprocess.run(
        [str(ROOT / "tests" / "sanitize_ops.sh"), str(amount)],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode != 0:
        findings.add("the sanitizers", (run.stdout + run.stderr)[-300:])
    return f"ASan and UBSan: {run.stdout.strip().splitlines()[-1] if run.stdout.strip() else 'no word'}"
