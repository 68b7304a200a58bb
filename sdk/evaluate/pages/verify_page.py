"""A verification as one HTML page: tables, charts, and pictures of the best, median and worst persons.

    html = html_page(verification, report_table(verification))

Everything is inline; the page loads nothing. What the numbers mean is said beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.evaluate.pages.charts import bar_chart, histogram, line_chart
from sdk.evaluate.pages.pictures import data_uri, person_picture
from sdk.evaluate.scores.scoring import truth_rows
from sdk.evaluate.speed.machine import machine_rows
from sdk.evaluate.verify import Verification
from sdk.wording import counted

__all__ = ["PUBLISHED_HEAD", "change_words", "document", "figure", "html_page", "published_rows", "rows_table", "shown"]

SHOWN = 6  # persons a row of pictures
PUBLISHED_HEAD = ("published", "value", "measured here", "boxes", "source")

STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;max-width:1120px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin-top:2.2rem;border-bottom:1px solid #8884}
table{border-collapse:collapse;margin:.6rem 0}td,th{padding:.15rem .8rem .15rem 0;text-align:left;vertical-align:top}
td.number{text-align:right;font-variant-numeric:tabular-nums}tr+tr td{border-top:1px solid #8883}
.charts{display:flex;flex-wrap:wrap;gap:1rem}.charts figure,.people figure{margin:0}
figcaption{font-size:.85rem;color:#777}.people{display:flex;flex-wrap:wrap;gap:.6rem}.people img{height:220px}
.big{font-size:2.2rem;font-weight:600}.fail{color:#c0392b}.pass{color:#1e8449}svg{max-width:100%;height:auto}
"""


def html_page(verification: Verification, table: Mapping[str, Any]) -> str:
    """The whole page."""
    engine, dataset = table["engine"], table["dataset"]
    body = [
        f"<h1>{escape(engine['name'])} on {escape(dataset['kind'])}</h1>",
        f"<p>{counted(dataset['persons'], 'person')} in {counted(dataset['pictures'], 'picture')} · "
        f"{dataset['boxes']} boxes ({escape(dataset['box_convention'])}) · {engine['precision']} on "
        f"{escape(engine['device'])} · flip test {'on' if table['protocol']['flip_test'] else 'off'}</p>",
        f'<p class="big">{escape(table["headline"])} {shown(table["figures"][table["headline"]])}</p>',
        *_comparison_part(verification, table),
        "<h2>Figures</h2>",
        rows_table([(name, shown(value)) for name, value in table["figures"].items()]),
        *_chart_part(verification, table),
        *_people_part(verification),
        *_detail_part(table),
    ]
    return document(f"{engine['name']} on {dataset['kind']}", "\n".join(body))


def document(title: str, body: str) -> str:
    """A page of its own around `body`."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n'
        f"<body>\n{body}\n</body></html>\n"
    )


def rows_table(rows: Sequence[tuple[str, ...]], head: tuple[str, ...] = ()) -> str:
    """Rows of text; the first cell names the row."""
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"] if head else []
    for first, *cells in rows:
        numbers = "".join(f'<td class="number">{escape(cell)}</td>' for cell in cells)
        lines.append(f"<tr><td>{escape(first)}</td>{numbers}</tr>")
    return "<table>" + "".join(lines) + "</table>"


def published_rows(table: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A report's published figures, each beside the one measured here, by `PUBLISHED_HEAD`."""
    return [
        (f"{p['dataset']} {p['metric']}", shown(p["value"]), shown(p["measured"]), p["boxes"], p["source"])
        for p in table["published"]
    ]


def figure(svg: str, caption: str) -> str:
    """A chart with its caption."""
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def shown(value: float | None) -> str:
    """A figure with two decimals; 'n/a' for one that does not exist."""
    return "n/a" if value is None else f"{value:.2f}"


def change_words(drop: float | None, interval: Sequence[float | None], samples: int) -> str:
    """How far a figure fell or rose against its reference, and how far in most bootstrap samples, the same way."""
    low, high = interval
    if drop is None or low is None or high is None:
        return "How far the figure fell is not known"
    within = f"in 95 % of {samples} bootstrap samples over pictures"
    if f"{abs(drop):.2f}" == "0.00":
        return f"The figure is the same (fell by {low:.2f} to {high:.2f} {within})"
    if drop > 0:
        return f"The figure fell by {drop:.2f} points ({low:.2f} to {high:.2f} {within})"
    return f"The figure rose by {-drop:.2f} points ({-high:.2f} to {-low:.2f} {within})"


def _comparison_part(verification: Verification, table: Mapping[str, Any]) -> list[str]:
    if verification.comparison is None:
        return []
    comparison, found = verification.comparison, table["comparison"]
    change = change_words(found["drop"], found["drop_interval_95"], comparison.samples)
    verdict = ("pass", "within") if verification.passed else ("fail", "not within")
    rows = [
        (f"{found['headline']} of this engine", shown(found["ours"])),
        (f"{found['headline']} of {found['reference']}", shown(found["reference_value"])),
        ("joints that moved by more than one bin", f"{shown(found['moved_share'])} %"),
        *[(f"joint distance, {name}", f"{shown(value)} px") for name, value in found["distance_px"].items()],
    ]
    charts = [
        figure(
            histogram(comparison.moved_bins.ravel(), "movement, bins", "joints"),
            "How far joints moved between the engines, the larger of both axes.",
        ),
        figure(
            bar_chart(
                verification.recipe.skeleton.joints,
                {"moved by more than a bin, %": np.array(list(found["moved_share_by_joint"].values()), float)},
                "joints, %",
                y_top=max(1.0, *(value or 0.0 for value in found["moved_share_by_joint"].values())),
            ),
            "Which joints moved.",
        ),
    ]
    pairs = "".join(_pair(verification, int(row)) for row in comparison.worst[:SHOWN])
    return [
        f"<h2>Against {escape(found['reference'])}</h2>",
        f'<p class="{verdict[0]}">{change}, {verdict[1]} the allowed drop of {verification.options.max_drop:g}.</p>',
        rows_table(rows),
        '<div class="charts">' + "".join(charts) + "</div>",
        "<p>Persons whose joints moved most: this engine left, the reference right.</p>",
        f'<div class="people">{pairs}</div>',
    ]


def _chart_part(verification: Verification, table: Mapping[str, Any]) -> list[str]:
    scores = verification.scores[0]
    runs = verification.timing.network_ms
    charts = [
        figure(line_chart(scores.curves, *scores.curve_axes, y_top=100.0), "How the figure comes about."),
        figure(
            bar_chart(verification.recipe.skeleton.joints, scores.joints, "per cent"),
            "Each joint over all persons in whom it is annotated.",
        ),
    ]
    if runs:
        a_person = np.array([milliseconds / max(1, persons) for milliseconds, persons in runs])
        together = f"{counted(len(runs), 'run')} side by side with reading"
        caption = f"Time of the network here, {together}; `sdk benchmark` measures latency."
        charts.insert(1, figure(histogram(a_person, "network, ms a person", "runs"), caption))
    return ["<h2>Curves, joints, time</h2>", '<div class="charts">' + "".join(charts) + "</div>", _spent(table)]


def _spent(table: Mapping[str, Any]) -> str:
    timing = table["timing"]
    if not timing["persons_per_second"]:
        return "<p>All persons came from the journal of an earlier run.</p>"
    rows = [(f"{name} (main thread)", f"{value} s") for name, value in timing["main_thread_seconds"].items()]
    rows += [
        (f"{name} (sum of {counted(timing['workers'], 'worker')})", f"{v} s")
        for name, v in timing["worker_seconds"].items()
    ]
    rows += [("whole", f"{timing['wall_seconds']} s"), ("scoring, afterwards", f"{timing['scoring_seconds']} s")]
    return f"<p>{timing['persons_per_second']} persons a second.</p>" + rows_table(rows)


def _people_part(verification: Verification) -> list[str]:
    quality = verification.scores[0].person_quality
    known = np.flatnonzero(np.isfinite(quality))
    if not len(known):
        return []
    order = known[np.argsort(-quality[known], kind="stable")]
    middle = max(0, len(order) // 2 - SHOWN // 2)
    chosen = {"Best": order[:SHOWN], "Median": order[middle : middle + SHOWN], "Worst": order[-SHOWN:][::-1]}
    parts = ["<h2>Persons</h2><p>By OKS with their annotation; white rings are annotated joints.</p>"]
    rows = truth_rows(verification.dataset, verification.persons[:, 0])
    for name, persons in chosen.items():
        pictures = "".join(_portrait(verification, int(row), int(rows[row]), quality) for row in persons)
        parts.append(f'<h3>{name}</h3><div class="people">{pictures}</div>')
    return parts


def _portrait(verification: Verification, row: int, truth_row: int, quality: NDArray[np.float64]) -> str:
    dataset = verification.dataset
    truth = dataset.truth.keypoints[truth_row] if truth_row >= 0 else None
    jpeg = person_picture(dataset, row, verification.persons[row, 0], truth)
    name = dataset.pictures[dataset.picture[row]].path.name
    if jpeg is None:
        return f"<figure><figcaption>{escape(name)} cannot be read any more</figcaption></figure>"
    caption = f"{name}, OKS {quality[row]:.2f}"
    image = f'<img src="{data_uri(jpeg)}" alt="{escape(caption)}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def _pair(verification: Verification, row: int) -> str:
    dataset, comparison = verification.dataset, verification.comparison
    assert comparison is not None, "pairs are drawn only with a reference"
    pictures = [person_picture(dataset, row, verification.persons[row, n]) for n in (0, 1)]
    images = "".join(f'<img src="{data_uri(jpeg)}" alt="">' for jpeg in pictures if jpeg is not None)
    name = dataset.pictures[dataset.picture[row]].path.name
    moved = float(comparison.moved_bins[row].mean())
    return f"<figure>{images}<figcaption>{escape(name)}, mean movement {moved:.1f} bins</figcaption></figure>"


def _detail_part(table: Mapping[str, Any]) -> list[str]:
    dataset = table["dataset"]
    remarks = [f"{reason}: {count}" for reason, count in dataset["left_out"].items()]
    remarks += [*dataset["notes"], *table["notes"]]
    parts = ["<h2>What this rests on</h2>"]
    if remarks:
        parts.append("<ul>" + "".join(f"<li>{escape(remark)}</li>" for remark in remarks) + "</ul>")
    for facts in (table["engine"], table["protocol"]):
        parts.append(
            rows_table([(str(key), _said(value)) for key, value in facts.items() if not isinstance(value, dict)])
        )
    parts.append(rows_table(machine_rows(table["machine"])))
    if table["published"]:
        parts.append("<p>Published for this network:</p>" + rows_table(published_rows(table), PUBLISHED_HEAD))
    return parts


def _said(value: object) -> str:
    return "none" if value is None else ("no", "yes")[value] if isinstance(value, bool) else str(value)
