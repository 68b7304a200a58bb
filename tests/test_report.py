"""Charts and reports: valid, self-contained, and saying what was measured."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from sdk.evaluate.datasets.dataset import DatasetOptions
from sdk.evaluate.pages.charts import bar_chart, histogram, line_chart, scatter_chart
from sdk.evaluate.pages.report import markdown, report_table, write_report
from sdk.evaluate.pages.verify_page import change_words
from sdk.evaluate.scores.published import command_for, measured_beside
from sdk.evaluate.verify import VerifyOptions, verify
from sdk.recipe import Published
from tests.support.engines import SMALL, pooled_simcc_graph, wrapped_engine

NAN = float("nan")
SVG = "{http://www.w3.org/2000/svg}"


def xy(*ys):
    return np.arange(len(ys), dtype=float), np.array(ys, float)


def elements(svg, kind):
    return ElementTree.fromstring(svg).findall(f".//{SVG}{kind}")


def test_a_line_chart_maps_values_to_the_plotting_area():
    [line] = elements(line_chart({"a": xy(0, 50, 100)}, "x", "y", y_top=100), "polyline")
    points = [tuple(map(float, pair.split(","))) for pair in line.get("points").split()]
    xs, ys = zip(*points, strict=True)
    assert xs[1] == pytest.approx((xs[0] + xs[2]) / 2) and ys[1] == pytest.approx((ys[0] + ys[2]) / 2)
    assert xs[0] < xs[2] and ys[0] > ys[2]  # rightwards and upwards


CHARTS = {
    "line": lambda: line_chart({"<a&b>": xy(1, 2)}, "x<", "y&"),
    "line-with-a-gap": lambda: line_chart({"a": xy(1, 2, NAN, 4, 5)}, "x", "y", markers=True),
    "line-of-nothing": lambda: line_chart({"a": xy(NAN, NAN)}, "x", "y"),
    "line-of-one-point": lambda: line_chart({"a": xy(3)}, "x", "y"),
    "no-series": lambda: line_chart({}, "x", "y"),
    "all-zero": lambda: line_chart({"a": xy(0, 0)}, "x", "y"),
    "bars": lambda: bar_chart(["left_hip", "b"], {"a": np.array([1.0, NAN]), "b": np.array([200.0, 0.0])}, "%"),
    "scatter": lambda: scatter_chart({"a": xy(1, NAN, 3)}, "x", "y"),
    "histogram": lambda: histogram(np.array([1.0, 2.0, NAN, 900.0]), "ms", "runs"),
    "histogram-of-nothing": lambda: histogram(np.zeros(0), "ms", "runs"),
    "histogram-of-one-value": lambda: histogram(np.full(9, 3.5), "ms", "runs"),
    "histogram-of-zeros": lambda: histogram(np.zeros(5), "ms", "runs"),
}


@pytest.mark.parametrize("case", CHARTS)
def test_charts_are_valid_xml_with_finite_numbers(case):
    svg = CHARTS[case]()
    ElementTree.fromstring(svg)
    assert not re.search(r"\b(nan|inf)\b", re.sub(r"<title>.*?</title>", "", svg))


TICKS = {  # chart of what is counted -> the numbers on that axis
    "one run a bar": (lambda: histogram(np.array([1.0, 2.0, 9.0]), "ms", "runs"), "end", ["0", "1"]),
    "one number of persons": (lambda: line_chart({"a": xy(0, 3)}, "persons", "ms", whole_x=True), "middle", ["0", "1"]),
    "a single point": (
        lambda: line_chart({"a": (np.ones(1), np.ones(1))}, "persons", "ms", markers=True, whole_x=True),
        "middle",
        ["1"],
    ),
}


@pytest.mark.parametrize(("chart", "anchor", "ticks"), TICKS.values(), ids=TICKS)
def test_what_is_counted_has_whole_ticks(chart, anchor, ticks):
    texts = [text.text for text in elements(chart(), "text") if text.get("text-anchor") == anchor]
    assert [text for text in texts if text.replace(".", "").isdecimal()] == ticks


CHANGES = {  # drop and its interval -> what is told
    "not known": (None, (None, None), "How far the figure fell is not known"),
    "fell": (0.42, (-0.1, 0.9), "The figure fell by 0.42 points (-0.10 to 0.90 in 95 % of 9 bootstrap samples"),
    "rose": (-0.42, (-0.9, 0.1), "The figure rose by 0.42 points (-0.10 to 0.90 in 95 % of 9 bootstrap samples"),
    "same": (-0.001, (-0.9, 0.1), "The figure is the same (fell by -0.90 to 0.10 in 95 % of 9 bootstrap samples"),
}


@pytest.mark.parametrize(("drop", "interval", "told"), CHANGES.values(), ids=CHANGES)
def test_a_change_is_told_in_its_direction(drop, interval, told):
    assert change_words(drop, interval, 9).startswith(told)


def test_a_gap_breaks_the_line_and_bars_are_cut_at_the_top():
    assert len(elements(CHARTS["line-with-a-gap"](), "polyline")) == 2
    bars = [r for r in elements(CHARTS["bars"](), "rect") if r.find(f"{SVG}title") is not None]
    assert len(bars) == 3  # one of four is NaN
    assert all(float(bar.get("y")) >= 30 for bar in bars)


@pytest.fixture(scope="module")
def verification(tmp_path_factory):
    cv2 = pytest.importorskip("cv2")
    for name in ("onnx", "onnxruntime", "pycocotools", "sdk._native"):
        pytest.importorskip(name)
    folder, rng = tmp_path_factory.mktemp("report"), np.random.default_rng(0)
    recipe = replace(SMALL, published=(Published("coco-val2017", "AP", 70.5, "detected, AP 56", "paper, table 3"),))
    engine = wrapped_engine(pooled_simcc_graph(folder / "a.onnx", recipe), folder / "ours.int8", recipe)
    other = wrapped_engine(pooled_simcc_graph(folder / "b.onnx", recipe, seed=1), folder / "reference", recipe)
    images, annotations = [], []
    for n in range(20):
        cv2.imwrite(str(folder / f"{n}.png"), rng.integers(0, 256, (90, 70, 3), np.uint8))
        images.append({"id": n, "file_name": f"{n}.png", "width": 70, "height": 90})
        points = np.concatenate([rng.uniform(5, 65, (14, 2)), rng.integers(0, 3, (14, 1))], axis=1)
        box = [5, 5, 0 if n == 7 else 60, 80]
        annotations.append(
            {"id": n, "image_id": n, "keypoints": points.ravel().tolist(), "bbox": box, "area": 4000.0, "iscrowd": 0}
        )
    (folder / "gone.png").touch()
    images.append({"id": 99, "file_name": "gone.png"})
    annotations.append({**annotations[0], "id": 99, "image_id": 99})
    (folder / "a.json").write_text(json.dumps({"images": images, "annotations": annotations, "categories": []}))
    dataset = DatasetOptions("lsp", folder / "a.json", folder)
    return verify(VerifyOptions(engine, dataset, device="cpu", against=other, samples=20, workers=1))


class Resources(HTMLParser):
    """What a page would fetch, and its tags."""

    def __init__(self):
        super().__init__()
        self.fetched, self.tags = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.fetched += [value for name, value in attributes if name in ("src", "href", "data", "srcset")]


def test_the_page_is_self_contained_and_shows_persons(verification, tmp_path):
    write_report(verification, tmp_path)
    page = (tmp_path / "report.html").read_text()
    reader = Resources()
    reader.feed(page)
    assert reader.fetched and all(value.startswith("data:image/jpeg;base64,") for value in reader.fetched)
    assert not {"script", "link", "iframe"} & set(reader.tags) and "@import" not in page and "url(" not in page
    assert reader.tags.count("svg") == 5 and reader.tags.count("img") == 18 + 2 * 6
    assert ">None<" not in page and ">False<" not in page and "{'" not in page
    for word in ("Best", "Median", "Worst", "Against reference", "zero-area box"):
        assert word in page
    for chart in re.findall(r"<svg.*?</svg>", page, re.S):
        ElementTree.fromstring(chart)


def test_the_table_is_json_and_says_what_the_figures_rest_on(verification):
    table = json.loads(json.dumps(report_table(verification), allow_nan=False))
    assert table["dataset"]["persons"] == 19 and table["dataset"]["pictures"] == 20
    assert table["dataset"]["left_out"] == {
        "zero-area box, person not cropped": 1,
        "picture cannot be read (the file is empty), left out of every figure": 1,
    }
    comparison = table["comparison"]
    assert comparison["reference"] == "reference" and comparison["bootstrap_samples"] == 20
    assert comparison["drop"] == pytest.approx(comparison["reference_value"] - comparison["ours"], abs=1e-3)
    assert set(table["joints"]["PCK@0.2"]) == set(SMALL.skeleton.joints)
    assert table["engine"]["files_sha256"] and table["machine"]["packages"]["numpy"] == np.__version__


def test_the_markdown_holds_figures_remarks_and_the_published_value(verification):
    table = report_table(verification)
    text = markdown(table)
    assert f"| PCK@0.2 | {table['figures']['PCK@0.2']:.2f} |" in text
    assert "- zero-area box, person not cropped: 1" in text
    assert "| coco-val2017 AP | 70.50 | n/a | detected, AP 56 | paper, table 3 |" in text
    assert "persons a second" in text
    assert all(line.count("|") >= 3 for line in text.splitlines() if line.startswith("|"))


def test_a_drop_that_does_not_exist_is_said(verification, tmp_path):
    comparison = replace(verification.comparison, ours=NAN, interval=(NAN, NAN))
    undefined = replace(verification, comparison=comparison)
    text = markdown(report_table(undefined))
    assert "| drop | n/a (95 %: n/a to n/a) |" in text and "EXCEEDED" in text
    assert "How far the figure fell is not known" in (write_report(undefined, tmp_path) / "report.html").read_text()


BESIDE = {  # a published figure's dataset and metric, the verified kind -> whether it is held against the measured
    "same": ("COCO val2017", "AP", "coco", True),
    "other-metric": ("COCO val2017", "AP, no extra post-processing", "coco", False),
    "other-dataset": ("COCO val2017", "AP", "crowdpose", False),
    "crowdpose": ("CrowdPose test", "AP", "crowdpose", True),
    "not-public": ("Body8", "AP", "coco", False),
    "not-measured": ("MPII val", "PCKh@0.1", "mpii", False),
}


@pytest.mark.parametrize(("dataset", "metric", "kind", "beside"), BESIDE.values(), ids=BESIDE)
def test_a_published_figure_stands_beside_the_measured_one(verification, dataset, metric, kind, beside):
    published = Published(dataset, metric, 70.5, "detected", "the paper")
    assert measured_beside(published, kind, {"AP": 61.25}) == (61.25 if beside else None)
    engine = verification.engines[0]
    recipe = replace(engine.manifest.recipe, published=(published,))
    scores = replace(verification.scores[0], figures={**verification.scores[0].figures, "AP": 61.25})
    changed = replace(
        verification,
        engines=(replace(engine, manifest=replace(engine.manifest, recipe=recipe)), *verification.engines[1:]),
        dataset=replace(verification.dataset, kind=kind),
        scores=(scores, *verification.scores[1:]),
    )
    table = report_table(changed)
    row = f"| {dataset} {metric} | 70.50 | {'61.25' if beside else 'n/a'} | detected | the paper |"
    assert row in markdown(table) and table["published"][0]["command"] == command_for(recipe, published)


def test_the_results_are_cocos_format(verification, tmp_path):
    write_report(verification, tmp_path)
    results = json.loads((tmp_path / "keypoints.json").read_text())
    assert len(results) == 19 and {len(result["keypoints"]) for result in results} == {42}
    assert {"image_id", "category_id", "keypoints", "score"} == set(results[0])
