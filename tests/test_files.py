"""Files whole or not at all: after success, faults, interrupts, and where nothing can be written."""

import errno
import os
from pathlib import Path

import pytest

from sdk import files as files_module
from sdk.errors import OutputError
from sdk.files import finished_name, real_path, whole_file, write_text
from tests.support.full_disk import full_disk
from tests.support.threads import in_threads


def names_in(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_the_file_appears_when_the_block_ends_well(tmp_path):
    path = tmp_path / "deep" / "er" / "report.json"
    with whole_file(path) as temporary:
        assert temporary.suffix == ".json" and temporary.parent == path.parent
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new" and names_in(tmp_path) == ["report.json"]


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt, SystemExit, OSError], ids=lambda e: e.__name__)
def test_a_fault_leaves_the_old_file_and_nothing_else(tmp_path, fault):
    path = tmp_path / "report.json"
    path.write_text("old")
    with pytest.raises(OutputError if fault is OSError else fault), whole_file(path) as temporary:
        temporary.write_text("half")
        raise fault
    assert path.read_text() == "old" and names_in(tmp_path) == ["report.json"]


def test_a_full_disk_is_told_with_its_mend(tmp_path):
    with (
        pytest.raises(OutputError, match=r"report' cannot be written \(No space left on device\); make room or choose"),
        whole_file(tmp_path / "report"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_folder_that_is_a_file_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"), whole_file(tmp_path / "file" / "report") as temporary:
        temporary.write_text("never")
    assert names_in(tmp_path) == ["file"]


@pytest.mark.parametrize("private", [False, True], ids=["shared", "private"])
def test_a_disk_that_really_is_full_leaves_the_old_file(tmp_path, private):
    path = tmp_path / "report"
    path.write_text("old")
    with (
        full_disk(room=1000),
        pytest.raises(OutputError, match=r"report' cannot be written \(File too large\)"),
        whole_file(path, private=private) as temporary,
    ):
        temporary.write_bytes(b"x" * 5000)
    assert path.read_text() == "old" and names_in(tmp_path) == ["report"]


def test_whoever_reads_the_old_file_reads_all_of_it(tmp_path):
    """The new file takes the old one's name; nothing is ever written into the old one."""
    path = tmp_path / "report"
    path.write_text("old")
    with path.open() as reader:
        with whole_file(path) as temporary:
            temporary.write_text("new and longer")
            made = temporary.stat().st_ino
        assert reader.read() == "old"
    assert path.read_text() == "new and longer" and path.stat().st_ino == made


def read_nothing():
    Path("/nowhere/input.json").read_text()


def lose_the_network():
    raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")


@pytest.mark.parametrize("fault", [read_nothing, lose_the_network])
def test_what_goes_wrong_elsewhere_is_not_told_as_the_outputs_fault(tmp_path, fault):
    with pytest.raises((FileNotFoundError, ConnectionResetError)), whole_file(tmp_path / "report") as temporary:
        temporary.write_text("half")
        fault()
    assert names_in(tmp_path) == []


def test_threads_that_write_one_file_do_not_collide(tmp_path):
    path, faults = tmp_path / "report", []

    def write(letter):
        try:
            for _ in range(50):
                with whole_file(path) as temporary:
                    temporary.write_text(1000 * letter)
        except (OSError, OutputError) as error:
            faults.append(error)

    in_threads(lambda index: write("ab"[index]), 2)
    assert faults == []
    assert path.read_text() in (1000 * "a", 1000 * "b") and names_in(tmp_path) == ["report"]


@pytest.mark.parametrize(("private", "mode"), [(False, 0o644), (True, 0o600)], ids=["shared", "private"])
def test_a_private_file_is_the_owners_alone_from_its_first_byte(tmp_path, private, mode):
    before = os.umask(0o022)
    try:
        with whole_file(tmp_path / "kernels", private=private) as temporary:
            temporary.write_text("code")
            assert temporary.stat().st_mode & 0o777 == mode
    finally:
        os.umask(before)
    assert (tmp_path / "kernels").stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("name", ["report", ".", "..", "/"])
def test_a_folder_in_the_place_is_told_before_the_work(tmp_path, monkeypatch, name):
    (tmp_path / "report").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match=r"cannot be written \(Is a directory\)"), whole_file(Path(name)):
        raise AssertionError("the block is not entered")
    assert names_in(tmp_path) == []


def test_the_name_an_unfinished_file_was_to_have(tmp_path):
    with whole_file(tmp_path / "table.json") as temporary:
        temporary.write_text("")
    assert finished_name(temporary.name) == finished_name("table.json") == "table.json"


def test_what_a_killed_run_left_of_this_name_goes_and_what_others_write_stays(tmp_path):
    mine, another, hand_made = (
        tmp_path / name for name in (".0badcafe.part.report", ".0badcafe.part.report2", ".part.report")
    )
    for path in (mine, another, hand_made):
        path.write_text("half")
    with whole_file(tmp_path / "report") as first:
        files_module._left_in.cache_clear()  # as another process looks
        with whole_file(tmp_path / "report") as second:
            assert first.exists() and second.exists()
    assert names_in(tmp_path) == [another.name, hand_made.name, "report"]


def test_a_link_or_a_pipe_of_such_a_name_is_left_alone(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / ".0badcafe.part.report").symlink_to(tmp_path / "precious")
    os.mkfifo(tmp_path / ".1badcafe.part.report")
    write_text(tmp_path / "report", "new")
    assert (tmp_path / "precious").read_text() == "mine"
    assert names_in(tmp_path / "") and (tmp_path / "report").read_text() == "new"


def test_names_that_are_no_text_are_written_all_the_same(tmp_path):
    write_text(tmp_path / "report", os.fsdecode(b"photo \xff"))
    assert (tmp_path / "report").read_text() == "photo \\udcff"


def test_links_are_followed_and_a_loop_of_them_leads_nowhere(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "loop").symlink_to("loop")
    assert real_path(tmp_path / "link") == tmp_path / "file"
    assert real_path(tmp_path / "loop" / "x") == tmp_path / "loop" / "x"
