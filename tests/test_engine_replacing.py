"""Replacing an engine: whole or not at all, whatever ends it, in turns, and its readers find one all the while."""

import errno
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

pytest.importorskip("onnx")

from sdk.errors import EngineError
from sdk.interrupts import stopping_alike
from sdk.launches import FILE as LAUNCHES
from sdk.manifest import GRAPH_NAME, MANIFEST_NAME, kernel_cache_name, open_engine
from sdk.toolchain import engine as engine_module
from sdk.toolchain.engine import check_output, engine_lock, recover_engine, reusable_engine
from tests.support.engine_folders import FILES, PLAN, left_beside, written


def test_a_new_engine_takes_the_place_of_the_old(place):
    written(place)
    engine = written(place, "k2", {GRAPH_NAME: b"other", PLAN: b"p"})
    assert engine.manifest.key == "k2"
    assert open_engine(place).graph_path.read_bytes() == b"other"
    assert left_beside(place) == []


def test_an_existing_folder_that_is_no_engine_is_left_alone(place):
    place.mkdir()
    (place / "thesis.tex").write_text("years of work")
    for call in (check_output, written):
        with pytest.raises(EngineError, match=r"exists and is not an engine folder; choose another --output"):
            call(place)
    assert (place / "thesis.tex").read_text() == "years of work"


def test_a_foreign_file_in_an_engine_folder_is_not_lost(place):
    written(place)
    (place / "notes.txt").write_text("mine")
    with pytest.raises(EngineError, match=r"holds 'notes.txt', which is not the engine's"):
        written(place, "k2")
    assert open_engine(place).manifest.key == "k1"


CACHE = kernel_cache_name("1.7.1.116", "8.6", "0123456789abcdef" + 48 * "0")


def test_a_kernel_cache_names_compiler_gpu_and_plan():
    assert CACHE == "kernels-1.7.1.116-sm86-0123456789abcdef.cache"


@pytest.mark.parametrize("kept", [CACHE, LAUNCHES])
@pytest.mark.parametrize("left", ["", ".01234567.part."], ids=["finished", "left by a kill"])
def test_an_engine_that_has_run_is_replaced_and_what_was_kept_beside_it_goes(place, kept, left):
    written(place)
    (place / f"{left}{kept}").write_bytes(b"made anew")
    check_output(place)
    assert reusable_engine(place, "k1") is not None
    written(place, "k2")
    assert sorted(path.name for path in place.iterdir()) == sorted([MANIFEST_NAME, *FILES])
    assert left_beside(place) == []


@pytest.mark.parametrize("name", ["kernels.txt", "mykernels-1.cache", "my-launches.json", ".01234567.part.notes.txt"])
def test_what_only_resembles_it_is_not_lost(place, name):
    written(place)
    (place / name).write_bytes(b"mine")
    with pytest.raises(EngineError, match="is not the engine's and would be lost"):
        written(place, "k2")


def test_a_link_stays_and_the_engine_it_leads_to_is_replaced(place):
    (place.parent / "disk").mkdir()
    real = place.parent / "disk" / "engine"
    written(real)
    place.symlink_to(real)
    with engine_lock(place):
        assert written(place, "k2").folder == place
    assert place.is_symlink()
    assert open_engine(real).manifest.key == "k2"
    assert left_beside(real) == []
    assert left_beside(place) == ["disk"]


def test_the_current_folder_is_not_pulled_from_under_its_user(place, monkeypatch):
    written(place)
    monkeypatch.chdir(place)
    for output in (Path(), place):
        with pytest.raises(EngineError, match="is the current folder, which a build replaces; run it from another"):
            check_output(output)


def test_a_file_in_the_way_is_an_error(place):
    place.write_text("x")
    with pytest.raises(EngineError, match="exists and is not an engine folder"):
        written(place)


def test_an_empty_folder_is_filled(place):
    place.mkdir()
    assert written(place).manifest.key == "k1"


@pytest.mark.parametrize("fails_on", [GRAPH_NAME, PLAN, MANIFEST_NAME])
@pytest.mark.parametrize("before", [None, "k0"], ids=["nothing there", "an engine there"])
def test_a_full_disk_leaves_what_was_there(place, monkeypatch, fails_on, before):
    if before:
        written(place, before)
    real = engine_module._write_durably

    def full(path, data):
        real(path, data[: len(data) // 2] if path.name == fails_on else data)
        if path.name == fails_on:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(engine_module, "_write_durably", full)
    with pytest.raises(EngineError, match=r"cannot be written \(No space left on device\); free some space"):
        written(place)
    assert left_beside(place) == []
    assert open_engine(place).manifest.key == before if before else not place.exists()


@pytest.fixture
def in_two_steps(monkeypatch):
    """A system that knows no exchange of two names."""
    monkeypatch.setattr(engine_module, "_exchanged", lambda one, other: False)


def test_an_engine_that_cannot_be_moved_into_place_leaves_the_old_one(place, monkeypatch, in_two_steps):
    written(place, "k0")
    real = Path.rename

    def refuse(self, target):
        if Path(target) == place and not self.name.endswith(engine_module.REPLACED):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return real(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(EngineError, match="Permission denied"):
        written(place)
    assert open_engine(place).manifest.key == "k0"
    assert left_beside(place) == []


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


def test_builders_of_one_engine_take_turns(place):
    log = place.parent / "log"
    spawn = multiprocessing.get_context("spawn")
    builders = [spawn.Process(target=hold, args=(place, log, name, 0.2)) for name in "abc"]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join(60)
        assert builder.exitcode == 0
    lines = log.read_text().split("\n")[:-1]
    assert [line.split()[1] for line in lines] == ["in", "out"] * 3
    assert all(lines[i].split()[0] == lines[i + 1].split()[0] for i in (0, 2, 4))
    assert left_beside(place) == ["log"]


def test_a_killed_builder_holds_nobody_up_and_is_cleaned_up_after(place):
    spawn = multiprocessing.get_context("spawn")
    held = spawn.Event()
    builder = spawn.Process(target=hold_forever, args=(place, held))
    builder.start()
    assert held.wait(60)
    builder.kill()
    builder.join()
    assert len(left_beside(place)) == 2, "the lock file and a folder that is not an engine"
    assert not place.exists()
    with engine_lock(place):
        written(place)
    assert left_beside(place) == []


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
def test_a_kill_between_the_two_renames_loses_no_engine(place, next_build):
    written(place, "k0")
    builder = multiprocessing.get_context("spawn").Process(target=replace_and_die, args=(place,))
    builder.start()
    builder.join()
    assert builder.exitcode == -signal.SIGKILL
    assert not place.exists()
    if next_build == "rebuild":
        recover_engine(place)
        assert open_engine(place).manifest.key == "k0"
    with engine_lock(place):
        assert reusable_engine(place, "k0") is not None
    assert left_beside(place) == []


def test_where_nothing_was_moved_aside_nothing_is_recovered(tmp_path):
    recover_engine(tmp_path / "no" / "engine")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_between_the_two_renames_puts_the_old_engine_back(place, monkeypatch, in_two_steps):
    written(place, "k0")
    real = Path.rename

    def interrupted(self, target):
        if Path(target) == place and self.name.endswith(engine_module.PARTIAL):
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        written(place, "k1")
    assert open_engine(place).manifest.key == "k0"
    assert left_beside(place) == []


@pytest.mark.parametrize("before", [None, "k0"], ids=["nothing there", "an engine there"])
def test_names_reach_the_disk_before_and_after_the_rename(place, monkeypatch, in_two_steps, before):
    if before:
        written(place, before)
    deeds, sync, rename = [], engine_module._sync_folder, Path.rename
    monkeypatch.setattr(engine_module, "_sync_folder", lambda path: (deeds.append(path.suffix), sync(path)))
    monkeypatch.setattr(Path, "rename", lambda self, to: (deeds.append("rename"), rename(self, to)))
    written(place)
    assert deeds[0] == engine_module.PARTIAL
    assert deeds[-2:] == ["rename", place.parent.suffix]


@pytest.mark.parametrize("fault", [errno.ENOSYS, errno.EINVAL, errno.ENOTSUP], ids=errno.errorcode.get)
def test_where_no_exchange_is_known_it_is_two_steps(place, monkeypatch, fault):
    written(place, "k0")
    monkeypatch.setattr(engine_module.ctypes, "get_errno", lambda: fault)
    monkeypatch.setattr(engine_module, "RENAME_EXCHANGE", 1 << 20)  # a flag that no kernel knows
    assert written(place, "k1").manifest.key == "k1"
    assert left_beside(place) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_stop_while_the_engine_is_put_in_place_waits_and_leaves_nothing(place, monkeypatch, number):
    written(place, "k0")
    real = engine_module._exchanged

    def stopped(one, other):
        signal.raise_signal(number)
        return real(one, other)

    monkeypatch.setattr(engine_module, "_exchanged", stopped)
    with pytest.raises(KeyboardInterrupt), stopping_alike():
        written(place, "k1")
    assert open_engine(place).manifest.key == "k1"
    assert left_beside(place) == []


def rebuild_again_and_again(folder, stop):
    number = 0
    while not stop.is_set():
        number += 1
        written(folder, f"k{number}")


def test_readers_find_a_whole_engine_during_rebuilds(place):
    written(place, "k0")
    stop = multiprocessing.get_context("spawn").Event()
    builder = multiprocessing.get_context("spawn").Process(target=rebuild_again_and_again, args=(place, stop))
    builder.start()
    try:
        keys = [open_engine(place).manifest.key]
        until = time.monotonic() + 30
        while len(set(keys)) < 20 and time.monotonic() < until:
            keys.append(open_engine(place).manifest.key)
    finally:
        stop.set()
        builder.join()
    assert len(set(keys)) >= 20, f"{len(keys)} openings saw {len(set(keys))} engines"
