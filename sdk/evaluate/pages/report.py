"""The report of a verification: `report.json` for machines, `report.md` for a change request, one `report.html`.

    folder = write_report(verification, Path("verify-out"))
    table = report_table(verification)                    # what report.json holds

The page is one file: charts are inline SVG, photographs inline JPEG, nothing is fetched.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.evaluate.pages.verify_page import PUBLISHED_HEAD, html_page, published_rows, shown
from sdk.evaluate.scores.published import PICTURES, command_for, measured_beside
from sdk.evaluate.scores.scoring import Rules, Scores, results_of
from sdk.evaluate.scores.sizes import by_size
from sdk.evaluate.verify import JOURNAL_NAME, Verification
from sdk.files import write_text
from sdk.manifest import Engine, sha256_of_file
from sdk.wording import counted

__all__ = ["markdown", "report_files", "report_table", "write_report"]

FORMAT = 1
RESULTS_NAME = "keypoints.json"
REPORT_NAMES = ("report.json", "report.md", "report.html")


def write_report(verification: Verification, folder: Path) -> Path:
    """Write the three reports and the COCO results into `folder`; the folder. Each file appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    table = report_table(verification)
    rules = Rules(verification.recipe, verification.options.nms)
    results = results_of(verification.dataset, verification.persons[:, 0], rules)
    write_text(folder / RESULTS_NAME, json.dumps(results))
    texts = (json.dumps(table, indent=2) + "\n", markdown(table), html_page(verification, table))
    for name, text in zip(REPORT_NAMES, texts, strict=True):
        write_text(folder / name, text)
    return folder


def report_files(folder: Path) -> list[Path]:
    """The files that a verification into `folder` writes, its journal included."""
    return [folder / name for name in (RESULTS_NAME, *REPORT_NAMES, JOURNAL_NAME)]


def report_table(verification: Verification) -> dict[str, Any]:
    """The report as plain tables; a figure that does not exist is null."""
    options, dataset, recipe = verification.options, verification.dataset, verification.recipe
    figures = _numbers(verification.scores[0].figures)
    table: dict[str, Any] = {
        "format": FORMAT,
        "engine": _engine_table(verification.engines[0], verification.devices[0]),
        "dataset": {
            "kind": dataset.kind,
            "annotations": options.dataset.annotations.name,
            "annotations_sha256": sha256_of_file(options.dataset.annotations),
            "boxes": dataset.boxes,
            "box_convention": dataset.convention if dataset.boxes == "annotated" else "as detected",
            "pictures": len(dataset.pictures),
            "persons": len(dataset),
            "left_out": dict(dataset.problems.counts),
            "left_out_examples": dict(dataset.problems.examples),
            "notes": list(dataset.notes),
        },
        "protocol": {
            "flip_test": options.flip_test,
            "flip_shift": recipe.protocol.flip_shift,
            "score": recipe.output.score or "heatmap maximum",
            "refine": options.refine,
            "box_padding": recipe.input.box_padding,
            "oks_nms": options.nms,
            "oks_threshold": recipe.protocol.oks_threshold,
            "joint_threshold": recipe.joint_threshold,
        },
        "headline": verification.scores[0].headline,
        "lower_is_better": verification.scores[0].lower_is_better,
        "figures": figures,
        "random_weights": any(engine.manifest.weights.kind == "random" for engine in verification.engines),
        "joints": _joint_table(verification.scores[0], recipe.skeleton.joints),
        "sizes": [
            {"name": group.name, "persons": group.persons, "oks": _number(group.oks)}
            for group in by_size(dataset, verification.scores[0].person_quality)
        ],
        "published": [
            {
                **asdict(figure),
                "measured": measured_beside(figure, dataset.kind, figures),
                "pictures": PICTURES.get(figure.dataset),
                "command": command_for(recipe, figure),
            }
            for figure in recipe.published
        ],
        "timing": _timing_table(verification),
        "notes": list(verification.notes),
        "machine": dict(verification.machine),
    }
    if verification.reliability is not None:
        table["spread"] = {**asdict(verification.reliability), "covered": verification.reliability.covered}
    if verification.comparison is not None:
        table["comparison"] = _comparison_table(verification)
    return table


def _timing_table(verification: Verification) -> dict[str, Any]:
    """Persons a second and where the time went. Shares are of the main thread's time; workers run beside it."""
    timing = verification.timing
    wall = timing.wall_seconds
    batches = np.array([milliseconds for milliseconds, _ in timing.network_ms])
    persons = np.array([count for _, count in timing.network_ms])
    table: dict[str, Any] = {
        "persons": timing.persons,
        "resumed_persons": verification.resumed,
        "wall_seconds": round(wall, 3),
        "persons_per_second": round(timing.persons / wall, 2) if wall > 0 and timing.persons else None,
        "main_thread_seconds": {
            name: round(timing.seconds[name], 3) for name in ("wait", "network", "decode", "journal")
        },
        "worker_seconds": {name: round(timing.seconds[name], 3) for name in ("read", "crop")},
        "workers": timing.workers,
        "scoring_seconds": round(verification.scoring_seconds, 3),
    }
    if len(batches):
        table["network_ms_a_run"] = {f"p{at}": round(float(np.percentile(batches, at)), 3) for at in (50, 90, 99)}
        table["persons_a_run"] = round(float(persons.mean()), 2)
    return table


def _one_of(dataset: Mapping[str, Any]) -> str:
    """What a report counts: persons, or where a detector gave the boxes its detections, of which many may be of one."""
    return "person" if dataset["boxes"] == "annotated" else "detection"


def markdown(table: Mapping[str, Any]) -> str:
    """The report in short."""
    dataset, engine = table["dataset"], table["engine"]
    lines = [
        f"# {engine['name']} on {dataset['kind']}",
        "",
        f"{counted(dataset['persons'], _one_of(dataset))} in {counted(dataset['pictures'], 'picture')}, "
        f"{dataset['boxes']} boxes ({dataset['box_convention']}); {engine['precision']} on {engine['device']}; "
        f"flip test {'on' if table['protocol']['flip_test'] else 'off'}.",
        "",
        *[f"**{note}**\n" for note in table["notes"] if "random weights" in note],
        *_markdown_rows(("figure", "value"), [(name, shown(value)) for name, value in table["figures"].items()]),
    ]
    if "comparison" in table:
        lines += _markdown_comparison(table["comparison"])
    if "spread" in table:
        spread = table["spread"]
        lines += [
            "",
            f"One spread holds {100 * spread['covered']:.1f} % of {spread['count']} labelled coordinates (68.3 %).",
        ]
    if table["published"]:
        lines += ["", *_markdown_rows(PUBLISHED_HEAD, published_rows(table))]
    remarks = [f"{reason}: {count}" for reason, count in dataset["left_out"].items()]
    remarks += [*dataset["notes"], *table["notes"]]
    if remarks:
        lines += ["", "Remarks", "", *[f"- {remark}" for remark in remarks]]
    names = table["joints"]
    joints = [(joint, *(shown(names[name][joint]) for name in names)) for joint in next(iter(names.values()))]
    lines += ["", *_markdown_rows(("joint", *names), joints)]
    sizes = [(group["name"], str(group["persons"]), shown(group["oks"])) for group in table["sizes"]]
    lines += ["", *_markdown_rows(("box's longer side", f"{_one_of(dataset)}s", "mean OKS"), sizes)]
    lines += _markdown_timing(table["timing"])
    return "\n".join(lines) + "\n"


def _markdown_timing(timing: Mapping[str, Any]) -> list[str]:
    if not timing["persons_per_second"]:
        return []
    spent = {**timing["main_thread_seconds"], **{f"{k} (workers)": v for k, v in timing["worker_seconds"].items()}}
    seconds = ", ".join(f"{name} {value} s" for name, value in spent.items())
    return ["", f"{timing['persons_per_second']} persons a second; {seconds}; scoring {timing['scoring_seconds']} s."]


def _markdown_comparison(comparison: Mapping[str, Any]) -> list[str]:
    low, high = map(shown, comparison["drop_interval_95"])
    rows = [
        (comparison["headline"], shown(comparison["ours"])),
        (f"{comparison['headline']} of {comparison['reference']}", shown(comparison["reference_value"])),
        ("drop", f"{shown(comparison['drop'])} (95 %: {low} to {high})"),
        ("allowed drop", f"{comparison['max_drop']:g}: {'kept' if comparison['passed'] else 'EXCEEDED'}"),
        ("joints moved by more than a bin", f"{shown(comparison['moved_share'])} %"),
        ("joint distance, px", ", ".join(f"{k} {shown(v)}" for k, v in comparison["distance_px"].items())),
    ]
    return ["", *_markdown_rows(("comparison", "value"), rows)]


def _markdown_rows(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (head, tuple("---" for _ in head), *rows)]


def _engine_table(engine: Engine, device: str) -> dict[str, Any]:
    manifest = engine.manifest
    return {
        "name": engine.folder.name,
        "recipe": manifest.recipe.name,
        "precision": manifest.precision,
        "weights": f"{manifest.weights.kind}: {manifest.weights.source}",
        "compiler": None if manifest.compiler is None else f"{manifest.compiler.name} {manifest.compiler.version}",
        "device": device,
        "files_sha256": dict(manifest.files),
    }


def _comparison_table(verification: Verification) -> dict[str, Any]:
    comparison = verification.comparison
    assert comparison is not None, "asked for only with a reference"
    joints = verification.recipe.skeleton.joints
    moved = 100 * (comparison.moved_bins > 1 + 1e-3).mean(axis=0)
    return {
        "reference": verification.engines[1].folder.name,
        "reference_engine": _engine_table(verification.engines[1], verification.devices[1]),
        "headline": comparison.headline,
        "ours": _number(comparison.ours),
        "reference_value": _number(comparison.reference),
        "reference_figures": _numbers(verification.scores[1].figures),
        "drop": _number(comparison.drop),
        "drop_interval_95": [_number(end) for end in comparison.interval],
        "bootstrap_samples": comparison.samples,
        "max_drop": verification.options.max_drop,
        "passed": verification.passed,
        "moved_share": _number(comparison.moved_share),
        "moved_share_by_joint": {name: _number(value) for name, value in zip(joints, moved, strict=True)},
        "distance_px": _numbers(comparison.distance_quantiles_px),
    }


def _joint_table(scores: Scores, joints: tuple[str, ...]) -> dict[str, dict[str, float | None]]:
    return {
        name: {joint: _number(value) for joint, value in zip(joints, values, strict=True)}
        for name, values in scores.joints.items()
    }


def _numbers(figures: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in figures.items()}


def _number(value: float | NDArray[np.float64]) -> float | None:
    return round(float(value), 4) if math.isfinite(value) else None
