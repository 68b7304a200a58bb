"""A benchmark as text and as a page: the cases, two runs side by side, latency by persons and over time.

text = benchmark_text(table)                       # `table` as `sdk.evaluate.speed.benchmark.benchmark` gives it
text = comparison_text(read_benchmark(a), read_benchmark(b))
page = benchmark_page(table)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sdk.errors import InputError
from sdk.evaluate.pages.benchmark_charts import sections_of
from sdk.evaluate.pages.html import filled
from sdk.evaluate.pages.verify_page import Tile
from sdk.evaluate.speed.benchmark import FORMAT
from sdk.evaluate.speed.machine import machine_rows
from sdk.reading import TABLE_BYTES, json_from_file
from sdk.wording import counted

__all__ = ["benchmark_page", "benchmark_text", "comparison_text", "read_benchmark"]

Table = Mapping[str, Any]


def read_benchmark(path: Path) -> dict[str, Any]:
    """A file of `sdk benchmark --json`."""
    mend = "write one with `sdk benchmark --json`"
    table = json_from_file(path, "benchmark", InputError, mend, largest=TABLE_BYTES)
    if not isinstance(table, dict) or table.get("format") != FORMAT or not isinstance(table.get("cases"), list):
        raise InputError(f"'{path}' is not a benchmark of format {FORMAT}; write one with `sdk benchmark --json`")
    return table


def benchmark_text(table: Table) -> str:
    """The run in short, for a terminal."""
    engine, machine, options = table["engine"], table["machine"], table["options"]
    lines = [
        f"{engine['name']}: {engine['precision']} on {table['device']}, frame {options['frame']}, "
        f"{_threads(options['threads'])}, flip test {'on' if options['flip_test'] else 'off'}",
        f"{machine['processor']}, {counted(machine['cores'], 'core')}, {_clock(machine)}, "
        f"load {machine['load_1_minute']}",
        f"GPU {_joined(machine['gpus'])}; power mode {machine['power_mode']}; power {table['power']}",
        "",
    ]
    if busy := machine.get("busy"):
        lines.insert(1, busy)
    if engine["weights"] == "random":
        lines.insert(1, "random weights: timing is real, poses are not")
    lines += _aligned(_case_rows(table["cases"]))
    staged = [case for case in table["cases"] if case["stages_ms"]]
    if staged:
        names = list(dict.fromkeys(name for case in staged for name in case["stages_ms"]))
        rows = [(case["name"], *(_stage(case["stages_ms"].get(name)) for name in names)) for case in staged]
        lines += ["", *_aligned([("stages, p50 ms", *names), *rows])]
    if table.get("row"):
        lines += ["", *_row_lines(table["row"], machine)]
    if table.get("device_clock"):
        lines += ["", *_aligned(_device_rows(table["device_clock"]))]
    if "peer" in table:
        lines += ["", *_peer_lines(table["peer"])]
    unsteady = [case["name"] for case in table["cases"] if not case["steady"]]
    if unsteady:
        lines += ["", f"never steady while warming up, so judge with care: {'; '.join(unsteady)}"]
    return "\n".join(lines) + "\n"


def _row_lines(row: Table, machine: Table) -> list[str]:
    """What is compared between boards and versions: one line of facts, one row a pace."""
    launches = row["launches"]
    accuracy = row.get("accuracy")
    facts = [
        str(row["plan"]),
        f"{launches} kernels a call" if isinstance(launches, int) else f"kernels a call: {launches}",
        f"{accuracy['name']} {accuracy['value']:.2f} on {accuracy['dataset']}" if accuracy else "AP: no dataset given",
        f"power mode {machine['power_mode']}",
    ]
    rows = [(row["case"], "calls", "p50 ms", "p99 ms", "missed", "J/person beyond idle", "clocks, MHz")]
    for each in row["paces"]:
        latency, clocks = each["latency_ms"], each["clock_mhz"]
        told = " ".join(f"{name} {mhz:.0f}" for name, mhz in clocks.items()) or "unavailable"
        joules = each["net_joules_a_person"]
        cells = (f"{latency['p50']:.3f}", f"{latency['p99']:.3f}", str(each["missed"]), str(joules), told)
        rows.append((each["pace"], str(each["calls"]), *cells))
    return ["; ".join(facts), *_aligned(rows)]


def comparison_text(a: Table, b: Table) -> str:
    """Cases of both runs side by side; a ratio above 1 says that B is faster."""
    first, second = ({case["name"]: case for case in table["cases"]} for table in (a, b))
    both = [name for name in first if name in second]
    if not both:
        raise InputError(f"the two benchmarks have no case in common (got {list(first)} and {list(second)})")
    lines = [f"{key}: {_label(table)}" for key, table in (("A", a), ("B", b))]
    rows = [("case", "A p50", "B p50", "A/B p50", "A p99", "B p99", "A/B p99")]
    for name in both:
        cells: list[str] = [name]
        for at in ("p50", "p99"):
            ours, theirs = first[name]["latency_ms"][at], second[name]["latency_ms"][at]
            cells += [f"{ours:.3f}", f"{theirs:.3f}", f"{ours / theirs:.3f}"]
        rows.append(tuple(cells))  # type: ignore[arg-type]
    alone = [f"only in {key}: {', '.join(names)}" for key, names in _alone(first, second) if names]
    return "\n".join([*lines, "", *_aligned(rows), *alone]) + "\n"


def benchmark_page(table: Table) -> str:
    """One self-contained page."""
    engine, options = table["engine"], table["options"]
    head, *rows = _case_rows(table["cases"])
    return filled(
        "benchmark.html.j2",
        title=f"Benchmark of {engine['name']}",
        about=f"{engine['precision']} on {table['device']} · frame {options['frame']} · "
        f"{_threads(options['threads'])} · flip test {'on' if options['flip_test'] else 'off'} · "
        f"{table['machine']['processor']}",
        notices=_notices(table),
        tiles=[_tile(case) for case in _headline_cases(table["cases"])],
        cases=rows,
        case_head=head,
        sections=sections_of(table),
        tables=_tables(table),
        machine=[("power", table["power"]), *machine_rows(table["machine"])],
    )


def _notices(table: Table) -> list[tuple[str, str]]:
    """What a reader must know before he believes a number."""
    notices = [("bad", busy)] if (busy := table["machine"].get("busy")) else []
    unsteady = [case["name"] for case in table["cases"] if not case["steady"]]
    if unsteady:
        notices.append(("warn", f"Never steady while warming up, so judge with care: {'; '.join(unsteady)}."))
    if table["engine"]["weights"] == "random":
        notices.append(("plain", "Random weights: timing is real, poses are not."))
    return notices


def _headline_cases(cases: Sequence[Table]) -> list[Table]:
    """The whole calls; the network's where there is none."""
    return [case for case in cases if case["kind"] == "estimate"] or [
        case for case in cases if case["kind"] == "network"
    ]


def _tile(case: Table) -> Tile:
    latency = case["latency_ms"]
    about = f"p50; p99 {latency['p99']:.2f} ms, {case['throughput_a_second']:.0f} persons a second"
    return Tile(case["name"], f"{latency['p50']:.2f} ms", about, large=True)


def _tables(table: Table) -> list[dict[str, Any]]:
    tables = []
    if table.get("device_clock"):
        head, *rows = _device_rows(table["device_clock"])
        about = "Never mixed with the caller's clock above."
        tables.append({"title": "By the GPU's own clock", "about": about, "head": head, "rows": rows})
    if peer := table.get("peer"):
        about = f"{peer['note']}; joints of both lie {peer['median_distance_px']} px apart in the middle."
        rows = [
            (counted(r["persons"], "person"), f"{r['ratio_p50']:.2f}", f"{r['ratio_p99']:.2f}") for r in peer["ratios"]
        ]
        head = ("its latency over ours", "p50", "p99")
        tables.append({"title": f"{peer['name']} {peer['version']}", "about": about, "head": head, "rows": rows})
    return tables


def _case_rows(cases: Sequence[Table]) -> list[tuple[str, ...]]:
    head = ("case", "p50 ms", "p90 ms", "p99 ms", "mean ms", "persons/s", "J/person")
    return [head, *[_row(case) for case in cases]]


def _row(case: Table) -> tuple[str, ...]:
    latency, joules = case["latency_ms"], case["joules_a_person"]
    return (
        case["name"],
        *(f"{latency[at]:.3f}" for at in ("p50", "p90", "p99", "mean")),
        f"{case['throughput_a_second']:.1f}",
        joules if isinstance(joules, str) else f"{joules:.4f}",
    )


def _clock(machine: Table) -> str:
    clock = machine["clock_mhz"]
    return f"clock {clock}" if isinstance(clock, str) else f"clock {clock['now']:.0f} MHz"


def _threads(threads: int | str) -> str:
    return counted(threads, "thread") if isinstance(threads, int) else f"threads: {threads}"


def _joined(words: Any) -> str:
    return words if isinstance(words, str) else ", ".join(words)


def _stage(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value['p50']:.3f}"


def _device_rows(clock: Table) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("by the device's clock, ms", "p50", "p99")]
    for batch, figures in clock["network_ms"].items():
        rows.append((f"plan alone, batch {batch}", f"{figures['p50']:.3f}", f"{figures['p99']:.3f}"))
    for persons, stages in clock["stages_ms"].items():
        for name, figures in stages.items():
            rows.append(
                (f"{name} apart, {counted(int(persons), 'person')}", f"{figures['p50']:.3f}", f"{figures['p99']:.3f}")
            )
    return rows


def _peer_lines(peer: Table) -> list[str]:
    lines = [f"{peer['name']} {peer['version']} ({peer['note']}), its latency over ours:"]
    lines += [
        f"  {counted(each['persons'], 'person')}: p50 {each['ratio_p50']:.2f}x, p99 {each['ratio_p99']:.2f}x"
        for each in peer["ratios"]
    ]
    return [*lines, f"  joints of both lie {peer['median_distance_px']} px apart in the middle"]


def _alone(first: Table, second: Table) -> list[tuple[str, list[str]]]:
    return [("A", [n for n in first if n not in second]), ("B", [n for n in second if n not in first])]


def _label(table: Table) -> str:
    engine = table["engine"]
    return f"{engine['name']} ({engine['precision']}) on {table['device']}, {table['machine']['processor']}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
