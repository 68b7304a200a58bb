"""One run at a time for a result that grows: the second is refused, and nothing of a lock stays."""

import os
import signal
import subprocess
import sys

import pytest

from sdk.errors import OutputError
from sdk.locks import LOCK, held, held_folder
from tests.support.predict import lines_of, names_in, predict

HOLDS = {"a file": held, "a folder": held_folder}


@pytest.mark.parametrize("hold", HOLDS.values(), ids=HOLDS)
def test_a_second_run_is_refused_and_the_next_is_not(tmp_path, hold):
    place = tmp_path / "deep" / "place"
    with hold(place):
        message = rf"place' is being written by another run \(process {os.getpid()}\); wait until it ends, or choose"
        with pytest.raises(OutputError, match=message), hold(place):
            pytest.fail("the second run went on")
    assert names_in(tmp_path) == []
    with hold(place):
        assert len(names_in(tmp_path)) == 1
    assert names_in(tmp_path) == []


def test_places_side_by_side_are_independent(tmp_path):
    with held(tmp_path / "a"), held(tmp_path / "b"), held_folder(tmp_path), held_folder(tmp_path / "c"):
        assert len(names_in(tmp_path)) == 4


def test_an_error_frees_the_place(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyError), held(tmp_path / "a"):
            raise KeyError
    assert names_in(tmp_path) == []


def test_a_killed_run_holds_nothing(tmp_path):
    code = "import sys, time; from pathlib import Path; from sdk.locks import held_folder\n"
    code += "with held_folder(Path(sys.argv[1])):\n    print(1, flush=True); time.sleep(60)"
    run = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert run.stdout.readline() == b"1\n"
    with pytest.raises(OutputError, match=rf"another run \(process {run.pid}\)"), held_folder(tmp_path):
        pass
    run.send_signal(signal.SIGKILL)
    run.wait()
    run.stdout.close()
    assert names_in(tmp_path) == [LOCK]
    with held_folder(tmp_path):
        pass
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("fault", ["ENOLCK", "ENOTSUP"])
def test_where_nothing_can_be_locked_the_run_goes_on_with_a_word(tmp_path, monkeypatch, caplog, fault):
    import errno

    from sdk import locks

    def refuse(*_):
        raise OSError(getattr(errno, fault), "no locks here")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with held(tmp_path / "a"):
        assert "lies where nothing can be locked: see that no other run writes it" in caplog.text


@pytest.mark.native
@pytest.mark.parametrize(("option", "hold"), [("--jsonl", held), ("--coco", held), ("--save", held_folder)])
def test_two_runs_with_one_result(small_engine, photos, tmp_path, capsys, option, hold):
    result = tmp_path / "out" / "result"
    with hold(result):
        assert predict(small_engine, photos, option, result) == 1
        assert f"result' is being written by another run (process {os.getpid()})" in capsys.readouterr().err
    assert names_in(tmp_path / "out") == []
    assert predict(small_engine, photos, option, result) == 0
    if option == "--jsonl":
        assert len(lines_of(result)) == 3
