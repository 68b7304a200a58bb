"""The calibration table: written, read back, and the graph it belongs to."""

import json

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx
from onnx import numpy_helper

from sdk.errors import CalibrationError
from sdk.manifest import open_engine
from sdk.toolchain.calibrate import CalibrateOptions, calibrate
from sdk.toolchain.crops import CropSet, people_from_data
from sdk.toolchain.fingerprint import graph_sha256
from sdk.toolchain.table import check_graph, table_from_file, write_table
from tests.support.int8 import changed, tiny_recipe, write_photographs

pytestmark = [pytest.mark.torch, pytest.mark.native]


@pytest.fixture(scope="module")
def table(tiny_model, tmp_path_factory):
    recipe = tiny_recipe()
    people = people_from_data(write_photographs(tmp_path_factory.mktemp("photographs"), 6), None, recipe)
    return calibrate(tiny_model, CropSet.drawn(people, recipe, count=6), CalibrateOptions())


def test_a_table_reads_back_to_seven_digits(table, tmp_path):
    write_table(table, tmp_path / "t.json")
    found = table_from_file(tmp_path / "t.json")
    assert set(found.tensors) == set(table.tensors)
    for name, tensor in table.tensors.items():
        assert found.tensors[name].amax == pytest.approx(tensor.amax, rel=1e-6)
    write_table(found, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == (tmp_path / "t.json").read_text()
    assert [path.name for path in tmp_path.iterdir()] != []


def test_other_weights_are_refused_and_named(tiny_model, table):
    other = changed(tiny_model, "first.b", 0.5)
    check_graph(table, tiny_model, "t.json", "tiny-32x32")
    with pytest.raises(
        CalibrationError, match=r"another graph of .* \(weights 'first.b': mean magnitude .* against 0.5"
    ):
        check_graph(table, other, "t.json", "tiny-32x32")


def test_another_structure_is_refused(tiny_model, table):
    other = onnx.ModelProto()
    other.CopyFrom(tiny_model)
    other.graph.node[0].attribute.append(onnx.helper.make_attribute("auto_pad", "NOTSET"))
    with pytest.raises(CalibrationError, match=r"another graph of the recipe, .* \(structure \w{12} against \w{12}"):
        check_graph(table, other, "t.json", "tiny-32x32")


def test_the_mend_names_the_graphs_recipe_and_spares_the_table(tiny_model, table):
    """A table of another network is good for that one: the command must not make it anew, nor in its place."""
    other = changed(tiny_model, "first.b", 0.5)
    with pytest.raises(CalibrationError) as raised:
        check_graph(table, other, "tables/tiny-32x32.json", "mine-32x32")
    assert "was made for recipe 'tiny-32x32', not for this graph of 'mine-32x32'" in str(raised.value)
    assert "`sdk calibrate mine-32x32 --data ... --output mine-32x32.json`" in str(raised.value)
    with pytest.raises(CalibrationError, match=r"--output tiny-32x32.new.json`"):
        check_graph(table, other, "tables/tiny-32x32.json", "tiny-32x32")


def test_the_same_weights_rounded_by_another_processor_are_the_same_graph(tiny_model, table):
    """As folding a batch norm gives them on another machine: some 1e-7 of themselves apart."""
    rng, other = np.random.default_rng(0), onnx.ModelProto()
    other.CopyFrom(tiny_model)
    for tensor in other.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            noisy = (array * (1 + rng.uniform(-6e-7, 6e-7, array.shape))).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(noisy, tensor.name))
    assert graph_sha256(other) != graph_sha256(tiny_model)
    check_graph(table, other, "t.json", "tiny-32x32")


OTHERS = {"order": lambda w: w[::-1], "sign": lambda w: -w, "scale": lambda w: w * 1.001}


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
def test_weights_of_the_same_magnitude_in_another_order_are_others(tiny_model, table, change):
    other = onnx.ModelProto()
    other.CopyFrom(tiny_model)
    tensor = next(t for t in other.graph.initializer if numpy_helper.to_array(t).ndim == 4)
    array = np.ascontiguousarray(change(numpy_helper.to_array(tensor)))
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    with pytest.raises(CalibrationError, match=r"another graph of the recipe, .* .weights"):
        check_graph(table, other, "t.json", "tiny-32x32")


def test_the_graph_hash_is_of_content_not_of_form(tiny_model):
    copy = onnx.ModelProto()
    copy.CopyFrom(tiny_model)
    copy.producer_name, copy.doc_string = "someone", "something"
    tensor = copy.graph.initializer[0]
    array = numpy_helper.to_array(tensor)
    tensor.ClearField("raw_data")
    tensor.float_data.extend(array.ravel().tolist())
    assert graph_sha256(copy) == graph_sha256(tiny_model)
    pads = next(a for a in copy.graph.node[0].attribute if a.name == "pads")
    pads.ints[0] += 1
    assert graph_sha256(copy) != graph_sha256(tiny_model)


def spoiled(**changes):
    def change(document):
        document.update(changes)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoiled(format=3), r"t\.json: key 'format' must be 2 \(got 3\)"),
        (spoiled(colour="red"), r"t\.json: unknown key 'colour'"),
        (spoiled(method=3), r"t\.json: key 'method' must be a text"),
        (lambda d: d.pop("data"), r"t\.json: key 'data' is missing"),
        (lambda d: d["tensors"]["block"].update(amax=0.0), r"key 'amax' must be above 0 \(got 0\.0\)"),
        (lambda d: d["tensors"]["block"].update(amax=float("nan")), r"key 'amax' must be finite \(got nan\)"),
        (
            lambda d: d["tensors"]["block"].update(amax=1.0),
            r"'tensors\.block\.amax' must be the candidate of",
        ),
        (lambda d: d["tensors"]["block"].update(channel_mean=[float("inf")]), r"'channel_mean'\[0\] must be finite"),
        (spoiled(equalisation={"block": [1.0, 0.0]}), r"equalisation'\.block\[1\] must be above 0"),
        (
            spoiled(equalisation={"block": [1.0]}),
            r"'equalisation\.block' must hold \d+ factors, .*\(got 1\)",
        ),
        (lambda d: d["data"].update(images=10**6), r"held_out <= images <= persons \(got \d+, 1000000, 6\)"),
        (lambda d: d["data"].update(jitter=-0.5), r"key 'jitter' must be from 0 to 1 \(got -0\.5\)"),
    ],
    ids=[
        "newer",
        "unknown",
        "type",
        "missing",
        "zero",
        "no number",
        "not its candidate",
        "mean without end",
        "factor of nothing",
        "factors of other channels",
        "more crops than persons",
        "jitter below nothing",
    ],
)
def test_a_spoiled_table_names_file_and_key(table, tmp_path, change, message):
    path = tmp_path / "t.json"
    write_table(table, path)
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(CalibrationError, match=message):
        table_from_file(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"format": 2, "format": 3}', "key 'format' stands twice in one table"),
        (None, "cannot be read"),
        ("{", "is not JSON"),
        ("[]", "'format' must be 2"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, content, message):
    path = tmp_path / "t.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CalibrationError, match=message):
        table_from_file(path)


def test_tables_that_ship_read_and_belong_to_the_bundled_graphs():
    from sdk.recipe import catalogue
    from sdk.resources import bundled_engines, catalogue_folder

    paths = sorted(catalogue_folder("calibration").glob("*.json"))
    assert paths
    bundled = {open_engine(folder).manifest.recipe.name: folder for folder in bundled_engines().values()}
    for path in paths:
        shipped = table_from_file(path)
        assert path.stem == shipped.recipe
        assert shipped.recipe in catalogue()
        assert shipped.data.images >= 500
        if shipped.recipe in bundled:
            check_graph(shipped, onnx.load(bundled[shipped.recipe] / "network.onnx"), path.name, shipped.recipe)
