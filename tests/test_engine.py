"""The engine folder: read back as it was written, reused by its content, verified on opening and refused in words."""

import errno
import json
import os
from dataclasses import replace

import pytest

pytest.importorskip("onnx")

from sdk.errors import EngineError
from sdk.manifest import GRAPH_NAME, MANIFEST_NAME, open_engine
from sdk.toolchain.engine import (
    check_output,
    content_key,
    engine_lock,
    recover_engine,
    reusable_engine,
    write_engine,
)
from tests.support.engine_folders import FILES, PLAN, left_beside, manifest, written


def test_what_is_written_is_read_back(place):
    engine = written(place)
    assert engine.folder == place
    assert engine.manifest == manifest(engine.manifest.files)
    assert engine.graph_path.read_bytes() == FILES[GRAPH_NAME]
    assert engine.plan_path.read_bytes() == FILES[PLAN]
    assert sorted(path.name for path in place.iterdir()) == sorted([MANIFEST_NAME, *FILES])
    assert left_beside(place) == []


def test_the_folder_is_readable_by_others(place):
    assert written(place).folder.stat().st_mode & 0o755 == 0o755


def test_an_engine_is_reused_by_its_key(place):
    assert reusable_engine(place, "k1") is None
    written(place)
    assert reusable_engine(place, "k1") is not None
    assert reusable_engine(place, "k2") is None


def test_a_damaged_engine_is_not_reused_and_the_log_says_why(place, caplog):
    written(place)
    (place / PLAN).write_bytes(b"x")
    assert reusable_engine(place, "k1") is None
    assert "was altered" in caplog.text


def flip_a_byte(folder):
    data = bytearray((folder / PLAN).read_bytes())
    data[17] ^= 1
    (folder / PLAN).write_bytes(data)


def edit(**changes):
    def change(folder):
        table = json.loads((folder / MANIFEST_NAME).read_text())
        for path, value in changes.items():
            at = table
            *parents, key = path.split("__")
            for parent in parents:
                at = at[parent]
            if value is None:
                del at[key]
            else:
                at[key] = value
        (folder / MANIFEST_NAME).write_text(json.dumps(table))

    return change


def test_a_graph_in_an_engines_place_is_told_the_command_that_makes_one(tmp_path):
    with pytest.raises(EngineError, match=r"build one with `sdk build-engine RECIPE --onnx .*net\.onnx`"):
        open_engine(tmp_path / "net.onnx")


DAMAGE = {
    "a flipped byte": (flip_a_byte, r"file 'tensorrt-rtx.plan' was altered \(sha256 .*rebuild the engine"),
    "a missing file": (lambda f: (f / GRAPH_NAME).unlink(), "file 'network.onnx' is missing"),
    "no manifest": (lambda f: (f / MANIFEST_NAME).unlink(), "is not an engine folder: it has no engine.json"),
    "a truncated manifest": (lambda f: (f / MANIFEST_NAME).write_text('{"format": 1,'), "is not JSON .*build the"),
    "a manifest that is a list": (lambda f: (f / MANIFEST_NAME).write_text("[]"), "key 'format' must be 1"),
    "a newer format": (edit(format=2, extra=1), r"key 'format' must be 1 \(got 2\).*SDK that built it"),
    "an unknown key": (edit(colour="red"), "unknown key 'colour'"),
    "a missing key": (edit(opset=None), "key 'opset' is missing"),
    "a wrong type": (edit(opset="19"), "key 'opset' must be a whole number"),
    "an unknown precision": (edit(precision="fp8"), "key 'precision' must be one of fp32, fp16, int8"),
    "no batch": (edit(batch__max=-1), r"key 'batch': key 'max' must be from 1 to 4096 \(got -1\)"),
    "a batch of nobody": (edit(batch__min=0), r"key 'min' must be from 1 to 4096 \(got 0\)"),
    "a smallest batch above the largest": (
        edit(batch__min=64),
        r"key 'batch' must hold 1 <= min <= opt <= max <= 4096 \(got min 64.*build the engine again",
    ),
    "a key that stands twice": (
        lambda f: (f / MANIFEST_NAME).write_text('{"format": 1, "batch": {"max": 16, "max": 1}}'),
        "key 'max' stands twice in one table",
    ),
    "ranges of a float engine": (
        edit(calibration={"table": "t", "sha256": "0", "method": "auto", "images": 500}),
        r"key 'calibration' belongs to precision int8 \(got precision fp",
    ),
    "a plan that is the graph": (
        edit(compiler__plan=GRAPH_NAME),
        "'compiler.plan' must be another file than",
    ),
    "a recipe out of range": (edit(recipe__input={}), "key 'input': key 'height' is missing"),
    "padding beyond every picture": (edit(recipe__input__box_padding=1e30), r"from 0\.1 to 10 \(got 1e\+30\)"),
    "a sigma that is no number": (edit(recipe__skeleton__sigmas=[float("nan")]), "sigmas'.*must be finite"),
    "one name for both axes": (edit(recipe__output__y_name="simcc_x"), "names that differ .*rebuild|names that differ"),
    "a recipe with a wrong key": (edit(recipe__sise=1), "unknown key 'sise'"),
    "a file outside the folder": (edit(files={"../x": "0", GRAPH_NAME: "0", PLAN: "0"}), "must not leave the folder"),
    "a plan without a hash": (edit(files={GRAPH_NAME: "0"}), "no sha256 for 'tensorrt-rtx.plan'"),
    "a plan outside the folder": (edit(compiler__plan="../../x"), "no sha256 for '../../x'"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_engine_is_refused(place, damage, message):
    written(place)
    damage(place)
    with pytest.raises(EngineError, match=message):
        open_engine(place)


def test_a_parent_that_is_a_file_is_an_error_in_words(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="cannot be written"), engine_lock(tmp_path / "file" / "engine"):
        pass


def test_an_engine_that_was_rebuilt_says_so(place):
    engine = written(place, "k0")
    assert not engine.rebuilt
    written(place, "k1")
    assert engine.rebuilt and not open_engine(place).rebuilt


def itself(folder):
    link = folder.parent / "loop"
    link.symlink_to(link)
    return link


UNREACHABLE = {
    "a name of 300 letters": (lambda folder: folder.parent / ("x" * 300), "cannot be reached .File name too long"),
    "a zero byte": (lambda folder: folder / "a\0b", r"cannot be reached \(.*embedded null (byte|character)"),
    "a link to itself": (itself, "cannot be reached .Too many levels of symbolic links"),
}


@pytest.mark.parametrize(("beyond", "message"), UNREACHABLE.values(), ids=UNREACHABLE)
def test_a_folder_that_cannot_be_reached_is_told(place, beyond, message):
    away = beyond(place)
    for use in (open_engine, check_output, written, recover_engine):
        with pytest.raises(EngineError, match=message):
            use(away)


def test_a_file_that_cannot_be_read_is_told(place, monkeypatch):
    """A disk that fails; mode 000 stops nobody who is root."""
    written(place)

    def fails(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("sdk.manifest.sha256_of_file", fails)
    with pytest.raises(EngineError, match=r"'network\.onnx' cannot be read \(Input/output error\); check its rights"):
        open_engine(place)


def test_the_key_follows_from_content_alone():
    facts = {"graph": "a", "batch": {"min": 1, "max": 4}}
    assert content_key(facts) == content_key({"batch": {"max": 4, "min": 1}, "graph": "a"})
    assert content_key(facts) != content_key({**facts, "graph": "b"})


def test_a_graph_alone_is_an_engine_too(place):
    def without_compiler(hashes):
        return replace(manifest(hashes), compiler=None)

    engine = write_engine(place, {GRAPH_NAME: b"graph"}, without_compiler)
    assert engine.plan_path is None
    assert open_engine(place).manifest.compiler is None
