"""The engine folder: written whole or not at all, reused by content, verified on opening, one builder at a time."""

import errno
import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("onnx")

from sdk.errors import EngineError
from sdk.interrupts import stopping_alike
from sdk.launches import FILE as LAUNCHES
from sdk.manifest import (
    FORMAT,
    GRAPH_NAME,
    MANIFEST_NAME,
    BatchRange,
    CompilerNote,
    Manifest,
    WeightsNote,
    kernel_cache_name,
    open_engine,
)
from sdk.toolchain import engine as engine_module
from sdk.toolchain.engine import (
    check_output,
    content_key,
    engine_lock,
    recover_engine,
    reusable_engine,
    write_engine,
)
from tests.support.engines import SMALL

PLAN = "tensorrt-rtx.plan"
FILES = {GRAPH_NAME: b"graph" * 1000, PLAN: b"plan" * 1000}


def manifest(hashes, key="k1"):
    return Manifest(
        format=FORMAT,
        recipe=SMALL,
        precision="fp16",
        opset=19,
        batch=BatchRange(1, 4, 16),
        weights=WeightsNote("random", "seed 0"),
        files=dict(hashes),
        key=key,
        created_by="tests",
        compiler=CompilerNote("tensorrt-rtx", "1.7.1", "portable", PLAN, {"workspace_mib": 64}),
        notes=("a note",),
    )


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "small.fp16"


def written(folder, key="k1", files=FILES):
    return write_engine(folder, files, lambda hashes: manifest(hashes, key))


def left_beside(folder):
    return sorted(path.name for path in folder.parent.iterdir() if path != folder)


def test_what_is_written_is_read_back(folder):
    engine = written(folder)
    assert engine.folder == folder
    assert engine.manifest == manifest(engine.manifest.files)
    assert engine.graph_path.read_bytes() == FILES[GRAPH_NAME]
    assert engine.plan_path.read_bytes() == FILES[PLAN]
    assert sorted(path.name for path in folder.iterdir()) == sorted([MANIFEST_NAME, *FILES])
    assert left_beside(folder) == []


def test_the_folder_is_readable_by_others(folder):
    assert written(folder).folder.stat().st_mode & 0o755 == 0o755


def test_a_new_engine_takes_the_place_of_the_old(folder):
    written(folder)
    engine = written(folder, "k2", {GRAPH_NAME: b"other", PLAN: b"p"})
    assert engine.manifest.key == "k2"
    assert open_engine(folder).graph_path.read_bytes() == b"other"
    assert left_beside(folder) == []


def test_an_engine_is_reused_by_its_key(folder):
    assert reusable_engine(folder, "k1") is None
    written(folder)
    assert reusable_engine(folder, "k1") is not None
    assert reusable_engine(folder, "k2") is None


def test_a_damaged_engine_is_not_reused_and_the_log_says_why(folder, caplog):
    written(folder)
    (folder / PLAN).write_bytes(b"x")
    assert reusable_engine(folder, "k1") is None
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
def test_a_damaged_engine_is_refused(folder, damage, message):
    written(folder)
    damage(folder)
    with pytest.raises(EngineError, match=message):
        open_engine(folder)


def test_an_existing_folder_that_is_no_engine_is_left_alone(folder):
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    for call in (check_output, written):
        with pytest.raises(EngineError, match=r"exists and is not an engine folder; choose another --output"):
            call(folder)
    assert (folder / "thesis.tex").read_text() == "years of work"


def test_a_foreign_file_in_an_engine_folder_is_not_lost(folder):
    written(folder)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(EngineError, match=r"holds 'notes.txt', which is not the engine's"):
        written(folder, "k2")
    assert open_engine(folder).manifest.key == "k1"


CACHE = kernel_cache_name("1.7.1.116", "8.6", "0123456789abcdef" + 48 * "0")


def test_a_kernel_cache_names_compiler_gpu_and_plan():
    assert CACHE == "kernels-1.7.1.116-sm86-0123456789abcdef.cache"


@pytest.mark.parametrize("kept", [CACHE, LAUNCHES])
@pytest.mark.parametrize("left", ["", ".01234567.part."], ids=["finished", "left by a kill"])
def test_an_engine_that_has_run_is_replaced_and_what_was_kept_beside_it_goes(folder, kept, left):
    written(folder)
    (folder / f"{left}{kept}").write_bytes(b"made anew")
    check_output(folder)
    assert reusable_engine(folder, "k1") is not None
    written(folder, "k2")
    assert sorted(path.name for path in folder.iterdir()) == sorted([MANIFEST_NAME, *FILES])
    assert left_beside(folder) == []


@pytest.mark.parametrize("name", ["kernels.txt", "mykernels-1.cache", "my-launches.json", ".01234567.part.notes.txt"])
def test_what_only_resembles_it_is_not_lost(folder, name):
    written(folder)
    (folder / name).write_bytes(b"mine")
    with pytest.raises(EngineError, match="is not the engine's and would be lost"):
        written(folder, "k2")


def test_a_link_stays_and_the_engine_it_leads_to_is_replaced(folder):
    (folder.parent / "disk").mkdir()
    real = folder.parent / "disk" / "engine"
    written(real)
    folder.symlink_to(real)
    with engine_lock(folder):
        assert written(folder, "k2").folder == folder
    assert folder.is_symlink()
    assert open_engine(real).manifest.key == "k2"
    assert left_beside(real) == []
    assert left_beside(folder) == ["disk"]


def test_the_current_folder_is_not_pulled_from_under_its_user(folder, monkeypatch):
    written(folder)
    monkeypatch.chdir(folder)
    for output in (Path(), folder):
        with pytest.raises(EngineError, match="is the current folder, which a build replaces; run it from another"):
            check_output(output)


def test_a_file_in_the_way_is_an_error(folder):
    folder.write_text("x")
    with pytest.raises(EngineError, match="exists and is not an engine folder"):
        written(folder)


def test_an_empty_folder_is_filled(folder):
    folder.mkdir()
    assert written(folder).manifest.key == "k1"


@pytest.mark.parametrize("fails_on", [GRAPH_NAME, PLAN, MANIFEST_NAME])
@pytest.mark.parametrize("before", [None, "k0"], ids=["nothing there", "an engine there"])
def test_a_full_disk_leaves_what_was_there(folder, monkeypatch, fails_on, before):
    if before:
        written(folder, before)
    real = engine_module._write_durably

    def full(path, data):
        real(path, data[: len(data) // 2] if path.name == fails_on else data)
        if path.name == fails_on:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(engine_module, "_write_durably", full)
    with pytest.raises(EngineError, match=r"cannot be written \(No space left on device\); free some space"):
        written(folder)
    assert left_beside(folder) == []
    assert open_engine(folder).manifest.key == before if before else not folder.exists()


@pytest.fixture
def in_two_steps(monkeypatch):
    """A system that knows no exchange of two names."""
    monkeypatch.setattr(engine_module, "_exchanged", lambda one, other: False)


def test_an_engine_that_cannot_be_moved_into_place_leaves_the_old_one(folder, monkeypatch, in_two_steps):
    written(folder, "k0")
    real = Path.rename

    def refuse(self, target):
        if Path(target) == folder and not self.name.endswith(engine_module.REPLACED):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return real(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(EngineError, match="Permission denied"):
        written(folder)
    assert open_engine(folder).manifest.key == "k0"
    assert left_beside(folder) == []


def test_a_parent_that_is_a_file_is_an_error_in_words(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="cannot be written"), engine_lock(tmp_path / "file" / "engine"):
        pass


def hold(folder, log, name, seconds):
    with engine_lock(folder):
        with log.open("a") as file:
            file.write(f"{name} in\n")
        time.sleep(seconds)
        with log.open("a") as file:
            file.write(f"{name} out\n")


def hold_forever(folder, held):
    def never_done(path, data):
        path.write_bytes(data[:10])
        held.set()
        time.sleep(600)

    engine_module._write_durably = never_done
    with engine_lock(folder):
        written(folder)


def test_builders_of_one_engine_take_turns(folder):
    log = folder.parent / "log"
    spawn = multiprocessing.get_context("spawn")
    builders = [spawn.Process(target=hold, args=(folder, log, name, 0.2)) for name in "abc"]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join(60)
        assert builder.exitcode == 0
    lines = log.read_text().split("\n")[:-1]
    assert [line.split()[1] for line in lines] == ["in", "out"] * 3
    assert all(lines[i].split()[0] == lines[i + 1].split()[0] for i in (0, 2, 4))
    assert left_beside(folder) == ["log"]


def test_a_killed_builder_holds_nobody_up_and_is_cleaned_up_after(folder):
    spawn = multiprocessing.get_context("spawn")
    held = spawn.Event()
    builder = spawn.Process(target=hold_forever, args=(folder, held))
    builder.start()
    assert held.wait(60)
    builder.kill()
    builder.join()
    assert len(left_beside(folder)) == 2, "the lock file and a folder that is not an engine"
    assert not folder.exists()
    with engine_lock(folder):
        written(folder)
    assert left_beside(folder) == []


def replace_and_die(folder):
    real = Path.rename

    def rename(self, target):
        real(self, target)
        if str(target).endswith(engine_module.REPLACED):
            os.kill(os.getpid(), signal.SIGKILL)

    Path.rename = rename
    engine_module._exchanged = lambda one, other: False
    with engine_lock(folder):
        written(folder, "k1")


@pytest.mark.parametrize("next_build", ["rebuild", "build"])
def test_a_kill_between_the_two_renames_loses_no_engine(folder, next_build):
    written(folder, "k0")
    builder = multiprocessing.get_context("spawn").Process(target=replace_and_die, args=(folder,))
    builder.start()
    builder.join()
    assert builder.exitcode == -signal.SIGKILL
    assert not folder.exists()
    if next_build == "rebuild":
        recover_engine(folder)
        assert open_engine(folder).manifest.key == "k0"
    with engine_lock(folder):
        assert reusable_engine(folder, "k0") is not None
    assert left_beside(folder) == []


def test_where_nothing_was_moved_aside_nothing_is_recovered(tmp_path):
    recover_engine(tmp_path / "no" / "engine")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_between_the_two_renames_puts_the_old_engine_back(folder, monkeypatch, in_two_steps):
    written(folder, "k0")
    real = Path.rename

    def interrupted(self, target):
        if Path(target) == folder and self.name.endswith(engine_module.PARTIAL):
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        written(folder, "k1")
    assert open_engine(folder).manifest.key == "k0"
    assert left_beside(folder) == []


@pytest.mark.parametrize("before", [None, "k0"], ids=["nothing there", "an engine there"])
def test_names_reach_the_disk_before_and_after_the_rename(folder, monkeypatch, in_two_steps, before):
    if before:
        written(folder, before)
    deeds, sync, rename = [], engine_module._sync_folder, Path.rename
    monkeypatch.setattr(engine_module, "_sync_folder", lambda path: (deeds.append(path.suffix), sync(path)))
    monkeypatch.setattr(Path, "rename", lambda self, to: (deeds.append("rename"), rename(self, to)))
    written(folder)
    assert deeds[0] == engine_module.PARTIAL
    assert deeds[-2:] == ["rename", folder.parent.suffix]


@pytest.mark.parametrize("fault", [errno.ENOSYS, errno.EINVAL, errno.ENOTSUP], ids=errno.errorcode.get)
def test_where_no_exchange_is_known_it_is_two_steps(folder, monkeypatch, fault):
    written(folder, "k0")
    monkeypatch.setattr(engine_module.ctypes, "get_errno", lambda: fault)
    monkeypatch.setattr(engine_module, "RENAME_EXCHANGE", 1 << 20)  # a flag that no kernel knows
    assert written(folder, "k1").manifest.key == "k1"
    assert left_beside(folder) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_stop_while_the_engine_is_put_in_place_waits_and_leaves_nothing(folder, monkeypatch, number):
    written(folder, "k0")
    real = engine_module._exchanged

    def stopped(one, other):
        signal.raise_signal(number)
        return real(one, other)

    monkeypatch.setattr(engine_module, "_exchanged", stopped)
    with pytest.raises(KeyboardInterrupt), stopping_alike():
        written(folder, "k1")
    assert open_engine(folder).manifest.key == "k1"
    assert left_beside(folder) == []


def rebuild_again_and_again(folder, stop):
    number = 0
    while not stop.is_set():
        number += 1
        written(folder, f"k{number}")


def test_readers_find_a_whole_engine_during_rebuilds(folder):
    written(folder, "k0")
    stop = multiprocessing.get_context("spawn").Event()
    builder = multiprocessing.get_context("spawn").Process(target=rebuild_again_and_again, args=(folder, stop))
    builder.start()
    try:
        keys = [open_engine(folder).manifest.key]
        until = time.monotonic() + 30
        while len(set(keys)) < 20 and time.monotonic() < until:
            keys.append(open_engine(folder).manifest.key)
    finally:
        stop.set()
        builder.join()
    assert len(set(keys)) >= 20, f"{len(keys)} openings saw {len(set(keys))} engines"


def test_an_engine_that_was_rebuilt_says_so(folder):
    engine = written(folder, "k0")
    assert not engine.rebuilt
    written(folder, "k1")
    assert engine.rebuilt and not open_engine(folder).rebuilt


def itself(folder):
    link = folder.parent / "loop"
    link.symlink_to(link)
    return link


UNREACHABLE = {
    "a name of 300 letters": (lambda folder: folder.parent / ("x" * 300), "cannot be reached .File name too long"),
    "a zero byte": (lambda folder: folder / "a\0b", r"cannot be reached \(.*embedded null (byte|character)"),
    "a link to itself": (itself, "cannot be reached .Too many levels of symbolic links"),
}


@pytest.mark.parametrize(("place", "message"), UNREACHABLE.values(), ids=UNREACHABLE)
def test_a_folder_that_cannot_be_reached_is_told(folder, place, message):
    away = place(folder)
    for use in (open_engine, check_output, written, recover_engine):
        with pytest.raises(EngineError, match=message):
            use(away)


def test_a_file_that_cannot_be_read_is_told(folder, monkeypatch):
    """A disk that fails; mode 000 stops nobody who is root."""
    written(folder)

    def fails(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("sdk.manifest.sha256_of_file", fails)
    with pytest.raises(EngineError, match=r"'network\.onnx' cannot be read \(Input/output error\); check its rights"):
        open_engine(folder)


def test_the_key_follows_from_content_alone():
    facts = {"graph": "a", "batch": {"min": 1, "max": 4}}
    assert content_key(facts) == content_key({"batch": {"max": 4, "min": 1}, "graph": "a"})
    assert content_key(facts) != content_key({**facts, "graph": "b"})


def test_a_graph_alone_is_an_engine_too(folder):
    def without_compiler(hashes):
        return replace(manifest(hashes), compiler=None)

    engine = write_engine(folder, {GRAPH_NAME: b"graph"}, without_compiler)
    assert engine.plan_path is None
    assert open_engine(folder).manifest.compiler is None
