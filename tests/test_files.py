"""Files whole or not at all: after success, faults, interrupts, and where nothing can be written."""

import errno

import pytest

from sdk.errors import OutputError
from sdk.files import whole_file


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


def test_a_folder_in_the_place_is_told(tmp_path):
    (tmp_path / "report").mkdir()
    with pytest.raises(OutputError, match="Is a directory"), whole_file(tmp_path / "report") as temporary:
        temporary.write_text("never")
    assert names_in(tmp_path) == []
