"""JSON lines that grow in a `.part` file: on disk once written, whole at the end, whole lines after a fault."""

import json

import pytest

from sdk.errors import OutputError
from sdk.media.lines import PartFile, part_of
from tests.support.full_disk import full_disk


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_is_on_disk_once_it_is_written(tmp_path):
    path = tmp_path / "new" / "lines.jsonl"
    with PartFile(path) as lines:
        for number in range(3):
            lines.write(number)
            assert lines_of(part_of(path)) == list(range(number + 1))
    assert lines_of(path) == [0, 1, 2] and not part_of(path).exists()


def test_a_full_disk_leaves_whole_lines(tmp_path):
    path = tmp_path / "lines.jsonl"
    with pytest.raises(OutputError, match="cannot be written"), full_disk(100), PartFile(path) as lines:
        while True:
            lines.write("x" * 30)
    assert lines_of(part_of(path)) == ["x" * 30] * 3 and not path.exists()


def test_no_line_leaves_no_file(tmp_path):
    with pytest.raises(KeyError), PartFile(tmp_path / "lines.jsonl"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
