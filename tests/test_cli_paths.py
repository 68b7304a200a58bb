"""Outputs that are inputs, and lines that outlive their run."""

import errno
import json
import os
from pathlib import Path

import pytest

from sdk.cli._paths import engine_files, refuse_overwriting
from sdk.errors import InputError, OutputError
from sdk.media.lines import PartFile

REFUSED = {  # outputs -> message, among a.jpg and its links
    "itself": ({"--coco": "a.jpg"}, r"--coco would overwrite the input '.*a\.jpg' \(got '.*a\.jpg'\); choose another"),
    "by a detour": ({"--coco": "sub/../a.jpg"}, "--coco would overwrite the input"),
    "a symbolic link": ({"--coco": "soft.jpg"}, "--coco would overwrite the input"),
    "a hard link": ({"--coco": "hard.jpg"}, "--coco would overwrite the input"),
    "twice": ({"--jsonl": "new", "--coco": "new"}, r"--coco and --jsonl would both be written to '.*new'"),
    "a folder": ({"--coco": "sub"}, r"--coco would be written to '.*sub', which is no plain file; choose another path"),
    "a device": ({"--coco": "/dev/null"}, "--coco would be written to '/dev/null', which is no plain file"),
    "a folder to be": (
        {"--jsonl": "out", "--save of 'a.jpg'": "out/a.jpg"},
        r"--jsonl would be written to '.*out', which is to be a folder \(--save of 'a.jpg' goes into it\)",
    ),
    "twice, by a detour": ({"--jsonl": "new", "--coco": "sub/../new"}, "--coco and --jsonl would both be written"),
    "twice, of old": ({"--jsonl": "old", "--coco": "sub/../old"}, "--coco and --jsonl would both be written"),
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a.jpg", "old"):
        (tmp_path / name).write_text(name)
    (tmp_path / "soft.jpg").symlink_to(tmp_path / "a.jpg")
    os.link(tmp_path / "a.jpg", tmp_path / "hard.jpg")
    return tmp_path


@pytest.mark.parametrize(("outputs", "message"), REFUSED.values(), ids=REFUSED)
def test_an_output_that_is_something_else_is_refused(folder, outputs, message):
    with pytest.raises(InputError, match=message):
        refuse_overwriting({option: folder / name for option, name in outputs.items()}, [folder / "a.jpg", None])


def test_outputs_of_their_own_are_taken(folder):
    refuse_overwriting({"--jsonl": folder / "new", "--coco": folder / "old", "--html": None}, [folder / "a.jpg"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("old/under/a/file", r"under/a/file' cannot be written \(Not a directory\); make room or choose another"),
        (f"{'long' * 64}.json", r"\.json' cannot be written \(File name too long\)"),
        ("/proc/poses.jsonl", r"'/proc/poses\.jsonl' cannot be written \(No such file"),
    ],
    ids=["under a file", "a name too long", "a file system that takes none"],
)
def test_a_place_that_takes_no_file_is_told_before_the_work(folder, name, message):
    before = names_in(folder)
    with pytest.raises(OutputError, match=message):
        refuse_overwriting({"--coco": folder / name}, [])
    assert names_in(folder) == before


def test_asking_for_a_place_leaves_nothing_there(folder):
    before = names_in(folder)
    refuse_overwriting({"--coco": folder / "new" / "deep" / "r.json"}, [])
    assert names_in(folder) == before


def test_the_files_of_an_engine(folder):
    assert folder / "old" in engine_files(folder) and engine_files("a-bundled-name") == []


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_lines_are_on_disk_as_they_are_written_and_renamed_at_the_end(tmp_path):
    with PartFile(tmp_path / "deep" / "p.jsonl") as lines:
        lines.write({"a": 1})
        assert lines.part.read_text() == '{"a": 1}\n' and not lines.path.exists()
    assert names_in(tmp_path / "deep") == ["p.jsonl"] and lines.path.read_text() == '{"a": 1}\n'


@pytest.mark.parametrize(("count", "left"), [(0, ["p.jsonl"]), (2, ["p.jsonl", "p.jsonl.part"])])
def test_what_was_finished_is_kept_and_the_old_result_too(tmp_path, count, left):
    (tmp_path / "p.jsonl").write_text("old\n")
    with pytest.raises(KeyboardInterrupt), PartFile(tmp_path / "p.jsonl") as lines:
        for number in range(count):
            lines.write({"a": number})
        raise KeyboardInterrupt
    assert names_in(tmp_path) == left and lines.path.read_text() == "old\n"


def test_half_a_line_is_cut_off(tmp_path, monkeypatch):
    with (
        pytest.raises(OutputError, match=r"p\.jsonl' cannot be written .*; make room"),
        PartFile(tmp_path / "p.jsonl") as lines,
    ):
        lines.write({"a": 1})
        lines._file.write(b'{"a": ')
        lines._file.flush()
        lines._file = Full(lines._file)
        lines.write({"a": 2})
    assert [json.loads(line) for line in lines.part.read_text().splitlines()] == [{"a": 1}]


class Full:
    """A file on a disk without room."""

    def __init__(self, file):
        self._file = file

    def write(self, _):
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self):
        self._file.close()


def test_a_place_that_is_none_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"), PartFile(Path(tmp_path / "file" / "p.jsonl")):
        pass
