"""Charts and reports: valid, self-contained, and saying what was measured."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest

from sdk.errors import MissingDependencyError
from sdk.evaluate.datasets.dataset import DatasetOptions
from sdk.evaluate.pages.charts import dot_chart, histogram, line_chart, scatter_chart, size_chart, stacked_bars
from sdk.evaluate.pages.html import check_page_packages
from sdk.evaluate.pages.report import markdown, report_table, write_report
from sdk.evaluate.pages.verify_page import _joint_chart, change_words
from sdk.evaluate.scores.published import command_for, measured_beside
from sdk.evaluate.scores.sizes import by_size
from sdk.evaluate.verify import VerifyOptions, verify
from sdk.recipe import Published
from tests.support.engines import SMALL, pooled_simcc_graph, wrapped_engine

NAN = float("nan")
SVG = "{http://www.w3.org/2000/svg}"


def xy(*ys):
    return np.arange(len(ys), dtype=float), np.array(ys, float)


def texts(chart):
    return ["".join(text.itertext()) for text in ElementTree.fromstring(chart.svg).iter(f"{SVG}text")]


CHARTS = {
    "line": lambda: line_chart({"<a&b>": xy(1, 2)}, "x<", "y&"),
    "line-with-a-gap": lambda: line_chart({"a": xy(1, 2, NAN, 4, 5)}, "x", "y", markers=True),
    "line-of-nothing": lambda: line_chart({"a": xy(NAN, NAN)}, "x", "y"),
    "line-of-one-point": lambda: line_chart({"a": xy(3)}, "x", "y"),
    "no-series": lambda: line_chart({}, "x", "y"),
    "all-zero": lambda: line_chart({"a": xy(0, 0)}, "x", "y"),
    "dots": lambda: dot_chart(["left_hip", "b"], {"a": np.array([1.0, NAN]), "b": np.array([200.0, 0.0])}, "%"),
    "dots-of-nobody": lambda: dot_chart([], {}, "%"),
    "sizes": lambda: size_chart({"below 64 px": (3, 0.5), "64 px and more": (0, NAN)}, "mean OKS", top=1.0),
    "no-sizes": lambda: size_chart({}, "mean OKS"),
    "stages": lambda: stacked_bars({"1 person": {"crop": 0.2, "network": 1.5}, "8 persons": {"network": 9.0}}, "ms"),
    "no-stages": lambda: stacked_bars({}, "ms"),
    "scatter": lambda: scatter_chart({"a": xy(1, NAN, 3)}, "x", "y"),
    "histogram": lambda: histogram(np.array([1.0, 2.0, NAN, 900.0]), "ms", "runs", {"p50": 2.0, "p99": 882.0}),
    "histogram-of-nothing": lambda: histogram(np.zeros(0), "ms", "runs"),
    "histogram-of-one-value": lambda: histogram(np.full(9, 3.5), "ms", "runs"),
    "histogram-of-zeros": lambda: histogram(np.zeros(5), "ms", "runs"),
}


@pytest.mark.parametrize("case", CHARTS)
def test_charts_are_valid_need_nothing_and_take_the_pages_colours(case):
    chart = CHARTS[case]()
    svg = ElementTree.fromstring(chart.svg)
    assert svg.get("viewBox") and svg.get("width") is None
    assert not re.search(r"\b(nan|inf)\b", chart.svg) and "#0a0" not in chart.svg
    assert re.findall(r"(?:https?|file):[^\s\"']+", chart.svg.replace("http://www.w3.org/", "")) == []
    assert CHARTS[case]() == chart  # the same data are the same page


def test_a_chart_of_many_series_names_them_in_their_colours():
    chart = line_chart({f"s{n}": xy(0, n) for n in range(8)}, "x", "y")
    assert [name for name, _ in chart.keys] == [f"s{n}" for n in range(8)]
    assert [colour for _, colour in chart.keys[:2]] == ["var(--s1)", "var(--s2)"]
    assert all(colour in chart.svg for _, colour in chart.keys)


SAID = {  # chart -> what must stand on it
    "marks": (lambda: histogram(np.arange(100.0), "ms", "calls", {"p50": 49.5, "p90": 89.0}), {"p50", "p90", "calls"}),
    "a straggler": (lambda: histogram(np.array([1.0] * 999 + [50.0]), "ms", "calls"), {"ms (1 beyond 1.5)"}),
    "sizes": (CHARTS["sizes"], {"0.50, 3 persons", "nobody", "below 64 px"}),
    "stages": (CHARTS["stages"], {"1.7", "9", "8 persons"}),
    "names": (CHARTS["dots"], {"left hip", "b", "%"}),
    "escaped": (CHARTS["line"], {"x<", "y&"}),
}


@pytest.mark.parametrize(("chart", "told"), SAID.values(), ids=SAID)
def test_charts_say_what_they_show(chart, told):
    assert told <= set(texts(chart()))


def test_what_is_counted_has_whole_ticks():
    for chart in (
        histogram(np.array([1.0, 2.0, 9.0]), "ms", "runs"),
        line_chart({"a": xy(0, 3)}, "persons", "ms", whole_x=True),
    ):
        axis = texts(chart)
        assert {"0", "1"} <= set(axis)
    assert not [text for text in texts(histogram(np.array([1.0, 2.0]), "ms", "runs")) if text in ("0.5", "0.2")]


def test_a_gap_breaks_the_line():
    def pieces(chart):
        return sum(
            path.get("d").count("M")
            for path in ElementTree.fromstring(chart.svg).iter(f"{SVG}path")
            if "var(--s1)" in (path.get("style") or "") and "clip-path" in path.attrib
        )

    assert pieces(line_chart({"a": xy(1, 2, NAN, 4, 5)}, "x", "y")) == 2
    assert pieces(line_chart({"a": xy(1, 2, 3, 4, 5)}, "x", "y")) == 1


def test_persons_are_grouped_by_the_longer_side_of_their_box():
    boxes = np.array([[0, 0, 10, 63], [0, 0, 64, 10], [0, 0, 5, 127.9], [0, 0, 900, 1], [0, 0, 20, 20]], float)
    groups = by_size(SimpleNamespace(boxes_xyxy=boxes), np.array([0.2, 0.4, 0.8, 1.0, NAN]))
    assert [(group.name, group.persons) for group in groups] == [
        ("below 64 px", 1), ("64 to 128 px", 2), ("128 to 256 px", 0), ("256 to 512 px", 0), ("512 px and more", 1),
    ]  # fmt: skip
    assert [group.oks for group in groups] == pytest.approx([0.2, 0.6, NAN, NAN, 1.0], nan_ok=True)


CHANGES = {  # drop and its interval -> what is told
    "not known": (None, (None, None), "How much worse the figure is, is not known"),
    "fell": (0.42, (-0.1, 0.9), "The figure is worse by 0.42 points (-0.10 to 0.90 in 95 % of 9 bootstrap samples"),
    "rose": (-0.42, (-0.9, 0.1), "The figure is better by 0.42 points (-0.10 to 0.90 in 95 % of 9 bootstrap samples"),
    "same": (-0.001, (-0.9, 0.1), "The figure is the same (worse by -0.90 to 0.10 in 95 % of 9 bootstrap samples"),
}


@pytest.mark.parametrize(("drop", "interval", "told"), CHANGES.values(), ids=CHANGES)
def test_a_change_is_told_in_its_direction(drop, interval, told):
    assert change_words(drop, interval, 9).startswith(told)


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
    assert not {"script", "link", "iframe"} & set(reader.tags) and "@import" not in page
    assert set(re.findall(r"url\((.)", page)) == {"#"}  # a chart's own clip paths
    assert reader.tags.count("svg") == 7 and reader.tags.count("img") == 18 + 2 * 6
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
    assert "| coco-val2017 AP | 70.50 | n/a | - | detected, AP 56 | paper, table 3 |" in text
    assert "persons a second" in text
    assert all(line.count("|") >= 3 for line in text.splitlines() if line.startswith("|"))


@pytest.mark.parametrize(("boxes", "counted"), [("annotated", "persons"), ("detected", "detections")])
def test_what_is_counted_is_called_what_it_is(verification, boxes, counted):
    text = markdown(report_table(replace(verification, dataset=replace(verification.dataset, boxes=boxes))))
    assert f"| box's longer side | {counted} | mean OKS |" in text
    assert re.search(rf"^\d+ {counted} in ", text, re.MULTILINE)


def test_a_drop_that_does_not_exist_is_said(verification, tmp_path):
    comparison = replace(verification.comparison, ours=NAN, interval=(NAN, NAN))
    undefined = replace(verification, comparison=comparison)
    text = markdown(report_table(undefined))
    assert "| drop | n/a (95 %: n/a to n/a) |" in text and "EXCEEDED" in text
    assert (
        "How much worse the figure is, is not known" in (write_report(undefined, tmp_path) / "report.html").read_text()
    )


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
    of = {"COCO val2017": "20 of 5000", "CrowdPose test": "20 of 8000"}.get(dataset)
    measured = f"61.25 | {of}" if beside else "n/a | -"
    row = f"| {dataset} {metric} | 70.50 | {measured} | detected | the paper |"
    assert row in markdown(table) and table["published"][0]["command"] == command_for(recipe, published)


def page_of(verification, folder):
    return (write_report(verification, folder) / "report.html").read_text()


def test_random_weights_are_never_a_headline(verification, tmp_path):
    engine = verification.engines[0]
    weights = replace(engine.manifest.weights, kind="random")
    random = replace(engine, manifest=replace(engine.manifest, weights=weights))
    note = "engine 'ours.int8' has random weights: its accuracy means nothing"
    changed = replace(verification, engines=(random, *verification.engines[1:]), notes=(note,))
    before, after = page_of(verification, tmp_path / "a"), page_of(changed, tmp_path / "b")
    assert 'class="tile' in before and 'class="tile' not in after
    assert '<p class="notice bad">engine &#39;ours.int8&#39; has random weights' in after
    text = markdown(report_table(changed))
    assert text.index(f"**{note}**") < text.index("| PCK@0.2 |")


def test_a_busy_machine_is_told_on_the_page(verification, tmp_path):
    quiet = replace(verification, machine={**verification.machine, "busy": ""})
    busy = replace(verification, machine={**verification.machine, "busy": "the machine was busy (a load of 21)"})
    assert "the machine was busy (a load of 21)" in page_of(busy, tmp_path / "a")
    assert "was busy" not in page_of(quiet, tmp_path / "b")


def test_what_a_dataset_calls_its_pictures_is_no_markup(verification, tmp_path):
    notes = ("<script>alert(1)</script>",)
    page = page_of(replace(verification, dataset=replace(verification.dataset, notes=notes)), tmp_path)
    assert "<script" not in page and "&lt;script&gt;" in page


def test_very_many_joints_are_cut_to_the_lowest(verification, tmp_path):
    names = tuple(f"joint_{n}" for n in range(133))
    recipe = verification.recipe
    skeleton = replace(recipe.skeleton, joints=names, flip_pairs=(), limbs=(), sigmas=(0.1,) * 133)
    recipe = replace(recipe, skeleton=skeleton)
    engine = replace(verification.engines[0], manifest=replace(verification.engines[0].manifest, recipe=recipe))
    series = {"PCK": np.linspace(0, 100, 133)}
    placed = _joint_chart("By joint", replace(verification, engines=(engine,)), series, "%", 100.0)
    assert "The 40 worst of 133" in placed.caption
    assert {"joint 0", "joint 39"} <= set(texts(placed.chart)) and "joint 40" not in texts(placed.chart)
    errors = texts(_joint_chart("By joint", replace(verification, engines=(engine,)), series, "NME", None).chart)
    assert {"joint 93", "joint 132"} <= set(errors) and "joint 92" not in errors


def test_an_error_says_that_lower_is_better(verification, tmp_path):
    scores = replace(verification.scores[0], lower_is_better=True)
    assert "lower is better" in page_of(replace(verification, scores=(scores,), comparison=None), tmp_path)


def test_a_page_needs_its_packages_before_the_work(monkeypatch):
    monkeypatch.setattr("sdk.evaluate.pages.html.PACKAGES", ("jinja2", "no_such_package"))
    with pytest.raises(MissingDependencyError, match=r"a page needs no_such_package, .*\[eval\]"):
        check_page_packages()


def test_the_results_are_cocos_format(verification, tmp_path):
    write_report(verification, tmp_path)
    results = json.loads((tmp_path / "keypoints.json").read_text())
    assert len(results) == 19 and {len(result["keypoints"]) for result in results} == {42}
    assert {"image_id", "category_id", "keypoints", "score"} == set(results[0])
