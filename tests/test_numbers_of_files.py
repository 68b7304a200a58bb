"""Every number of every file that is read strictly has bounds: no leaf of a manifest, a recipe or a table takes all."""

import json
from contextlib import contextmanager
from functools import reduce
from pathlib import Path

import pytest

from sdk.errors import CalibrationError, EngineError, RecipeError
from sdk.manifest import manifest_from_table
from sdk.recipe import catalogue, recipe_from_table
from sdk.resources import bundled_engines, catalogue_folder

BEYOND = {"nan": float("nan"), "1e308": 1e308, "-1e308": -1e308}


def numbers_of(value, path=()):
    """The paths of all numbers, one for each place of the format: of a list, or of tables of one kind, the first."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = list(enumerate(value))[:1]
    else:
        items = ()
        if type(value) in (int, float):
            yield path
    for key, item in items:
        yield from numbers_of(item, (*path, key))


@contextmanager
def changed(document, path, value):
    """The document with another value at a path, for a while."""
    *above, last = path
    at = reduce(lambda table, key: table[key], above, document)
    before, at[last] = at[last], value
    yield
    at[last] = before


def refuses(read, document, error):
    try:
        read(document)
    except error:
        return True
    return False


def taken(document, read, error):
    """Where the reader takes a value beyond all bounds."""
    found = []
    for path in numbers_of(document):
        for name, value in BEYOND.items():
            with changed(document, path, value):
                if not refuses(read, document, error):
                    found.append((".".join(map(str, path)), name))
    return found


def test_every_number_of_a_manifest_has_bounds():
    (folder, *_) = bundled_engines().values()
    document = json.loads((folder / "engine.json").read_text())
    assert taken(document, lambda table: manifest_from_table(table, "engine.json"), EngineError) == []


def of_each_kind():
    """A recipe of each pair of backbone and head."""
    kinds = {(r.network.backbone.kind, r.network.head.kind): name for name, r in catalogue().items() if r.network}
    return sorted(kinds.values())


@pytest.mark.parametrize("name", of_each_kind())
def test_every_number_of_a_recipe_has_bounds(name):
    document = catalogue()[name].to_table()
    assert taken(document, lambda table: recipe_from_table(table, "x.toml"), RecipeError) == []


def test_every_number_of_a_calibration_table_has_bounds(tmp_path):
    pytest.importorskip("onnx")
    from sdk.toolchain.table import table_from_file

    (source, *_) = sorted(Path(catalogue_folder("calibration")).glob("*.json"))
    document = json.loads(source.read_text())
    first = next(iter(document["tensors"]))
    document |= {"tensors": {first: document["tensors"][first]}, "equalisation": {}}

    def read(table):
        path = tmp_path / "t.json"
        path.write_text(json.dumps(table))
        return table_from_file(path)

    assert taken(document, read, CalibrationError) == []
