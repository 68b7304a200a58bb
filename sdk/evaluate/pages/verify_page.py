"""A verification as one HTML page: figures, charts, and pictures of the worst, median and best persons.

    html = html_page(verification, report_table(verification))

Everything is inline; the page loads nothing. What the numbers mean is said beside them; a network of random weights has
no headline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.evaluate.pages.charts import Chart, dot_chart, histogram, line_chart, size_chart, stacked_bars
from sdk.evaluate.pages.html import filled
from sdk.evaluate.pages.pictures import data_uri, person_picture
from sdk.evaluate.scores.reliability import ONE_SPREAD, Reliability
from sdk.evaluate.scores.scoring import truth_rows
from sdk.evaluate.speed.machine import machine_rows
from sdk.evaluate.verify import Verification
from sdk.wording import counted

__all__ = ["PUBLISHED_HEAD", "Picture", "Placed", "Tile", "change_words", "html_page", "published_rows", "shown"]

SHOWN = 6  # persons a row of pictures
ROWS = 40  # joints that a chart shows, the worst ones of more
PUBLISHED_HEAD = ("published", "value", "measured here", "pictures here", "boxes", "source")
MAIN_THREAD = {"wait": "waiting for crops", "network": "network", "decode": "decode", "journal": "journal"}


@dataclass(frozen=True)
class Placed:
    """A chart on a page."""

    title: str
    chart: Chart
    caption: str


@dataclass(frozen=True)
class Tile:
    """A number that stands by itself."""

    name: str
    value: str
    about: str = ""
    large: bool = False


@dataclass(frozen=True)
class Picture:
    """One or several pictures of a person, and what they show."""

    uris: tuple[str, ...]
    caption: str


def html_page(verification: Verification, table: Mapping[str, Any]) -> str:
    """The whole page."""
    engine, dataset = table["engine"], table["dataset"]
    return filled(
        "verify.html.j2",
        title=f"{engine['name']} on {dataset['kind']}",
        about=f"{counted(dataset['persons'], 'person')} in {counted(dataset['pictures'], 'picture')} · "
        f"{dataset['boxes']} boxes ({dataset['box_convention']}) · {engine['precision']} on {engine['device']} · "
        f"flip test {'on' if table['protocol']['flip_test'] else 'off'}",
        notices=_notices(table),
        tiles=_tiles(table),
        published=published_rows(table),
        published_head=PUBLISHED_HEAD,
        comparison=_comparison(verification, table),
        charts=_accuracy(verification, table),
        people=_people(verification),
        times=_times(verification, table),
        remarks=_remarks(table),
        facts=_facts(table),
    )


def published_rows(table: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A report's published figures, each beside the one measured here, by `PUBLISHED_HEAD`."""
    here = table["dataset"]["pictures"]
    return [
        (
            f"{p['dataset']} {p['metric']}",
            shown(p["value"]),
            shown(p["measured"]),
            "-" if p["measured"] is None else str(here) if p["pictures"] is None else f"{here} of {p['pictures']}",
            p["boxes"],
            p["source"],
        )
        for p in table["published"]
    ]


def shown(value: float | None) -> str:
    """A figure with two decimals; 'n/a' for one that does not exist."""
    return "n/a" if value is None else f"{value:.2f}"


def change_words(drop: float | None, interval: Sequence[float | None], samples: int) -> str:
    """How much worse or better a figure is than its reference, and how much in most bootstrap samples, the same way."""
    low, high = interval
    if drop is None or low is None or high is None:
        return "How much worse the figure is, is not known"
    within = f"in 95 % of {samples} bootstrap samples over pictures"
    if f"{abs(drop):.2f}" == "0.00":
        return f"The figure is the same (worse by {low:.2f} to {high:.2f} {within})"
    if drop > 0:
        return f"The figure is worse by {drop:.2f} points ({low:.2f} to {high:.2f} {within})"
    return f"The figure is better by {-drop:.2f} points ({-high:.2f} to {-low:.2f} {within})"


def _notices(table: Mapping[str, Any]) -> list[tuple[str, str]]:
    notices = [("bad", note) for note in table["notes"] if "random weights" in note]
    if table["machine"]["busy"]:
        notices.append(("warn", f"{table['machine']['busy']}. The times below are not the engine's; its accuracy is."))
    partial = [p for p in table["published"] if p["measured"] is not None and p["pictures"] is not None]
    if any(table["dataset"]["pictures"] < p["pictures"] for p in partial):
        few = counted(table["dataset"]["pictures"], "picture")
        notices.append(("warn", f"Measured on {few} of {partial[0]['pictures']}: the published figure is of all."))
    return notices


def _tiles(table: Mapping[str, Any]) -> list[Tile]:
    """The headline first; nothing of a network whose weights are random."""
    if table["random_weights"]:
        return []
    headline, dataset = table["headline"], table["dataset"]
    about = f"on {counted(dataset['persons'], 'person')}{', lower is better' if table['lower_is_better'] else ''}"
    main = Tile(headline, shown(table["figures"][headline]), about, large=True)
    return [main, *[Tile(name, shown(value)) for name, value in table["figures"].items() if name != headline]]


def _comparison(verification: Verification, table: Mapping[str, Any]) -> dict[str, Any] | None:
    if verification.comparison is None:
        return None
    comparison, found = verification.comparison, table["comparison"]
    verdict = "within" if verification.passed else "not within"
    change = change_words(found["drop"], found["drop_interval_95"], comparison.samples)
    moved = {"moved": np.array([np.nan if v is None else v for v in found["moved_share_by_joint"].values()])}
    return {
        "reference": found["reference"],
        "passed": verification.passed,
        "words": f"{change}, {verdict} the allowed drop of {verification.options.max_drop:g}.",
        "rows": [
            (f"{found['headline']} of this engine", shown(found["ours"])),
            (f"{found['headline']} of {found['reference']}", shown(found["reference_value"])),
            ("joints that moved by more than one bin", f"{shown(found['moved_share'])} %"),
            *[(f"joint distance, {name}", f"{shown(value)} px") for name, value in found["distance_px"].items()],
        ],
        "by_joint": _joint_chart("Which joints moved", verification, moved, "moved by more than a bin, %", None),
        "how_far": Placed(
            "How far joints moved",
            histogram(comparison.moved_bins.ravel(), "movement, bins", "joints"),
            "Between the two engines, on the same crops; the larger of both axes.",
        ),
        "people": [_pair(verification, int(row)) for row in comparison.worst[:SHOWN]],
    }


def _accuracy(verification: Verification, table: Mapping[str, Any]) -> list[Placed]:
    scores = verification.scores[0]
    some = [place for place, group in enumerate(table["sizes"]) if group["persons"]]
    sizes = {
        group["name"]: (group["persons"], _number(group["oks"]))
        for group in (table["sizes"][some[0] : some[-1] + 1] if some else ())
    }
    return [
        _joint_chart("By joint", verification, scores.joints, "per cent", None if scores.lower_is_better else 100.0),
        Placed(
            "By size",
            size_chart(sizes, "mean OKS with the annotation", top=1.0),
            "Persons by the longer side of their box: how much of the figure is owed to large ones.",
        ),
        Placed(
            "How the figure comes about",
            line_chart(scores.curves, *scores.curve_axes, y_top=100.0),
            "The further to the right a line stays high, the better."
            if scores.curve_axes[0].startswith("recall")
            else "The sooner the line rises, the better.",
        ),
        *([] if verification.reliability is None else _reliability(verification.reliability)),
    ]


def _reliability(found: Reliability) -> list[Placed]:
    """Whether the stated spread holds: at every width, and at every size of it."""
    levels, held = 100 * np.array(found.levels), 100 * np.array(found.held)
    sizes, covered = np.array(found.spreads_px), 100 * np.array(found.covered_by_spread)
    whole = {"held": (levels, held), "as stated": (levels, levels)}
    by_size = {"held": (sizes, covered), "as stated": (sizes, np.full(len(sizes), 100 * ONE_SPREAD))}
    return [
        Placed(
            "Whether the spread holds",
            line_chart(whole, "stated, %", "held, %", y_top=100.0, markers=True),
            f"Share of {found.count} labelled coordinates within a multiple of their spread, and what a Gaussian's "
            f"would hold; one spread holds {100 * found.covered:.1f} %.",
        ),
        Placed(
            "By the size of the spread",
            line_chart(by_size, "spread, px", "held by one, %", y_top=100.0, markers=True),
            "Within one spread, in groups of equal count from the surest to the least sure.",
        ),
    ]


def _joint_chart(
    title: str, verification: Verification, series: Mapping[str, NDArray[np.float64]], label: str, top: float | None
) -> Placed:
    """A row a joint; of very many joints the worst ones by the first series: the highest where there is no `top`."""
    names, caption = np.array(verification.recipe.skeleton.joints), "Over all persons in whom the joint is annotated."
    if len(names) <= ROWS:
        return Placed(title, dot_chart(names.tolist(), series, label, top=top), caption)
    first = next(iter(series.values())) * (1 if top else -1)
    chosen = np.sort(np.argsort(np.where(np.isfinite(first), first, np.inf), kind="stable")[:ROWS])
    kept = {name: values[chosen] for name, values in series.items()}
    caption += f" The {ROWS} worst of {len(names)}; all stand in report.json."
    return Placed(title, dot_chart(names[chosen].tolist(), kept, label, top=top), caption)


def _times(verification: Verification, table: Mapping[str, Any]) -> list[Placed]:
    timing, runs = table["timing"], verification.timing.network_ms
    if not timing["persons_per_second"]:
        return []
    main = {MAIN_THREAD[name]: value for name, value in timing["main_thread_seconds"].items()}
    rows = {"main thread": main, f"{counted(timing['workers'], 'worker')}": timing["worker_seconds"]}
    charts = [
        Placed(
            "Seconds",
            stacked_bars(rows, "seconds"),
            f"{timing['persons_per_second']} persons a second. Workers read and crop beside the main thread; theirs is "
            f"the sum. Scoring took {timing['scoring_seconds']} s after that.",
        )
    ]
    if runs:
        a_person = np.array([milliseconds / max(1, persons) for milliseconds, persons in runs])
        marks = {f"p{at}": float(np.percentile(a_person, at)) for at in (50, 90, 99)}
        chart = histogram(a_person, "network, ms a person", "runs", marks)
        about = f"{counted(len(runs), 'run')} side by side with reading; sdk benchmark measures latency."
        charts.append(Placed("The network here", chart, about))
    return charts


def _people(verification: Verification) -> list[tuple[str, list[Picture]]]:
    """The worst persons first: they say most."""
    quality = verification.scores[0].person_quality
    known = np.flatnonzero(np.isfinite(quality))
    order = known[np.argsort(quality[known], kind="stable")]
    middle = max(0, len(order) // 2 - SHOWN // 2)
    chosen = {"Worst": order[:SHOWN], "Median": order[middle : middle + SHOWN], "Best": order[-SHOWN:][::-1]}
    rows = truth_rows(verification.dataset, verification.persons[:, 0])
    return [
        (name, [_portrait(verification, int(row), int(rows[row]), quality) for row in persons])
        for name, persons in chosen.items()
        if len(persons)
    ]


def _portrait(verification: Verification, row: int, truth_row: int, quality: NDArray[np.float64]) -> Picture:
    dataset = verification.dataset
    truth = dataset.truth.keypoints[truth_row] if truth_row >= 0 else None
    jpeg = person_picture(dataset, row, verification.persons[row, 0], truth)
    name = dataset.pictures[dataset.picture[row]].path.name
    if jpeg is None:
        return Picture((), f"{name} cannot be read any more")
    return Picture((data_uri(jpeg),), f"{name}, OKS {quality[row]:.2f}")


def _pair(verification: Verification, row: int) -> Picture:
    dataset, comparison = verification.dataset, verification.comparison
    assert comparison is not None, "pairs are drawn only with a reference"
    jpegs = [person_picture(dataset, row, verification.persons[row, n]) for n in (0, 1)]
    name = dataset.pictures[dataset.picture[row]].path.name
    moved = float(comparison.moved_bins[row].mean())
    return Picture(
        tuple(data_uri(jpeg) for jpeg in jpegs if jpeg is not None), f"{name}, mean movement {moved:.1f} bins"
    )


def _remarks(table: Mapping[str, Any]) -> list[str]:
    dataset = table["dataset"]
    left_out = [f"{reason}: {count}" for reason, count in dataset["left_out"].items()]
    return [*left_out, *dataset["notes"], *[note for note in table["notes"] if "random weights" not in note]]


def _facts(table: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    named = {"The engine": table["engine"], "The protocol": table["protocol"]}
    facts = [
        (title, [(key.replace("_", " "), _said(value)) for key, value in part.items() if not isinstance(value, dict)])
        for title, part in named.items()
    ]
    return [*facts, ("The machine", machine_rows(table["machine"]))]


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _said(value: object) -> str:
    return "none" if value is None else ("no", "yes")[value] if isinstance(value, bool) else str(value)
