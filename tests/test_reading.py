"""The readers of JSON, TOML and CSV: what is refused before and after a parser sees it, in words and as the type asked
for, whatever the content."""

import os
from pathlib import Path

import pytest

from sdk import reading
from sdk.errors import InputError
from sdk.reading import csv_from_file, json_from_file, json_from_text, toml_from_file

BAD_JSON = {
    "empty": (b"", r"is not JSON \(.*\); mend it"),
    "cut": (b'{"a": [1', "is not JSON"),
    "two documents": (b"{}{}", "is not JSON"),
    "no text": (b"\xff\xfe{\x00}\x00", "is not JSON .*codec can't decode"),
    "lists 65 deep": (b"[" * 65 + b"]" * 65, "nests tables or lists deeper than 64; mend it"),
    "tables 65 deep": (b'{"a":' * 65 + b"1" + b"}" * 65, "nests tables or lists deeper than 64"),
    "lists without end": (b"[" * 100_000, "nests tables or lists deeper than 64"),
    "deep behind an escaped quote": (rb'["\\\"[", "\\", ' + b"[" * 64 + b"]" * 65, "nests tables or lists deeper"),
    "1001 digits": (b"[1, " + b"9" * 1001 + b"]", "holds a number of more than 1000 digits"),
    "5000 digits": (b"0." + b"1" * 5000, "holds a number of more than 1000 digits"),
    "a key twice": (b'{"a": 1, "b": 2, "a": 3}', "must say each key once .key 'a' stands twice in one table.; mend it"),
    "a key twice, deep": (b'[{"t": {"a": 1, "a": 1}}]', "key 'a' stands twice"),
}
GOOD_JSON = {
    "with a mark of order": ('\ufeff{"a": 1}', {"a": 1}),
    "brackets in texts": ('["' + "[" * 99 + '", "\\"' + "{" * 99 + '"]', ["[" * 99, '"' + "{" * 99]),
    "digits in a text": ('["' + "7" * 1999 + '", 1]', ["7" * 1999, 1]),
    "64 deep": ("[" * 64 + "]" * 64, eval("[" * 64 + "]" * 64)),
    "1000 digits": ("9" * 1000, 10**1000 - 1),
    "many side by side": ("[" + "[]," * 500 + "[]]", [[]] * 501),
}


@pytest.mark.parametrize(("content", "message"), BAD_JSON.values(), ids=BAD_JSON)
def test_json_that_is_none_or_out_of_bounds_is_refused(tmp_path, content, message):
    path = tmp_path / "boxes.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        json_from_file(path, "boxes file", InputError, "mend it")
    assert str(caught.value).startswith(f"boxes file '{path}' ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(("content", "value"), GOOD_JSON.values(), ids=GOOD_JSON)
def test_json_within_its_bounds_is_read(tmp_path, content, value):
    path = tmp_path / "boxes.json"
    path.write_text(content, encoding="utf-8")
    assert json_from_file(path, "boxes file", InputError) == value


def test_json_of_a_text_names_what_it_is_of():
    assert json_from_text('{"a": 1}', "the recipe", InputError) == {"a": 1}
    with pytest.raises(InputError, match=r"^the recipe is not JSON \(.*\); export it again$"):
        json_from_text("{", "the recipe", InputError, "export it again")


BAD_TOML = {
    "no TOML": ("[base", "is not TOML"),
    "a key twice": ("a = 1\na = 2", "is not TOML: Cannot overwrite a value"),
    "5000 digits": (f"a = {'9' * 5000}", "is not TOML: Exceeds the limit"),
    "1001 digits": (f"a = [{'9' * 1001}]", "holds a number of more than 1000 digits"),
    "lists 200 deep": ("a = " + "[" * 200 + "]" * 200, "nests tables or lists deeper than 64"),
    "lists without end": ("a = " + "[" * 100_000, "nests tables or lists deeper than 64"),
    "a key of 65 parts": (".".join("a" * 65) + " = 1", "nests tables or lists deeper than 64"),
    "a key of 1002 parts": (".".join("a" * 1002) + " = 1", "has a line of more than 1000 dots"),
    "a day that is none": ("a = 1979-13-45", "is not TOML"),
}


@pytest.mark.parametrize(("content", "message"), BAD_TOML.values(), ids=BAD_TOML)
def test_toml_that_is_none_or_out_of_bounds_is_refused(tmp_path, content, message):
    path = tmp_path / "net.toml"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        toml_from_file(path, "recipe file", InputError)
    assert str(caught.value).startswith(f"recipe file '{path}' ")


def test_toml_of_windows_is_read(tmp_path):
    path = tmp_path / "net.toml"
    path.write_bytes(b'\xef\xbb\xbfa = [0.1, 0.2]\r\nb = """x\r\ny"""\r\n')
    assert toml_from_file(path, "recipe file", InputError) == {"a": [0.1, 0.2], "b": "x\ny"}


def rows_of(tmp_path, content):
    path = tmp_path / "boxes.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    columns, rows = csv_from_file(path, "boxes file", InputError)
    return columns, list(rows)


def test_csv_rows_stand_by_their_line(tmp_path):
    columns, rows = rows_of(tmp_path, 'file,x\r\n"a\r\nb",1\r\n\r\nc\u2028d\r\n')
    assert columns == ["file", "x"]
    assert rows == [(2, {"file": "a\r\nb", "x": "1"}), (5, {"file": "c\u2028d", "x": ""})]


BAD_CSV = {
    "a cell too large": ("file\n" + "a" * 200_000, r"line 2 cannot be read as CSV \(field larger than"),
    "a header too large": ("a" * 200_000, r"cannot be read as CSV \(field larger than"),
    "a column twice": ("file,x,file\n1,2,3", "the header line names column 'file' twice"),
    "cells under no column": ("file,x\na,1\nb,1,2", "line 3 has 3 cells under 2 columns"),
    "no text": (b"file\n\xff", "codec can't decode"),
}


@pytest.mark.parametrize(("content", "message"), BAD_CSV.values(), ids=BAD_CSV)
def test_csv_that_is_none_is_refused(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        rows_of(tmp_path, content)


CLOSED = {"none": "No such file", "": "Is a directory", "x" * 300: "File name too long", "\0": "null"}
READERS = {"json": json_from_file, "toml": toml_from_file, "csv": csv_from_file}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize(("name", "reason"), CLOSED.items(), ids=["absent", "a folder", "300 letters", "a zero byte"])
def test_what_cannot_be_opened_is_told(tmp_path, read, name, reason):
    with pytest.raises(InputError, match=rf"boxes file '.*' cannot be read \(.*{reason}.*\); check the path"):
        read(tmp_path / name, "boxes file", InputError)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_file_is_read_up_to_its_bound(tmp_path, monkeypatch, read):
    monkeypatch.setattr(reading, "TOML_BYTES", 1 << 20)
    monkeypatch.setattr(reading, "ANNOTATIONS_BYTES", 1 << 20)
    path = tmp_path / "file"
    path.write_bytes(b" " * (1 << 20) + b" ")
    options = {"largest": 1 << 20} if read is json_from_file else {}
    with pytest.raises(InputError, match=r"boxes file '.*' is longer than 1 MiB"):
        read(path, "boxes file", InputError, **options)


def test_a_pipe_is_read_as_a_file_is():
    reader, writer = os.pipe()
    os.write(writer, b'{"a": 1}')
    os.close(writer)
    assert json_from_file(Path(f"/dev/fd/{reader}"), "boxes file", InputError) == {"a": 1}
    os.close(reader)
