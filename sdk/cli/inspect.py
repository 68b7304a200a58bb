"""`sdk inspect`: an engine's manifest, files (hashes verified), tensors, and the precision of each kind of layer.

sdk inspect rtmpose-s-256x192.fp16
"""

from __future__ import annotations

import argparse
import json
from typing import Any

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("engine", metavar="ENGINE", help="an engine folder, or a bundled engine's name")
    parser.add_argument("--json", action="store_true", help="everything, for machines")


def run(arguments: argparse.Namespace) -> int:
    from sdk.runtime.opening import engine_from
    from sdk.toolchain.inspect import facts_of_engine

    facts = facts_of_engine(engine_from(arguments.engine))
    print(json.dumps(facts, indent=1) if arguments.json else _page(facts))
    return 0


def _page(facts: dict[str, Any]) -> str:
    lines = [*_header(facts["manifest"]), "", "files (sha256 verified)"]
    lines += [f"  {name:22} {file['bytes'] / 1e6:9.2f} MB" for name, file in facts["files"].items()]
    lines += ["", "tensors"]
    for tensor in facts["tensors"]:
        shape = " x ".join(map(str, tensor["shape"]))
        lines.append(f"  {tensor['direction']:6} {tensor['name']:15} {tensor['dtype']:8} {shape}")
    lines += ["", f"layers ({facts['parameters'] / 1e6:.2f} M parameters)"]
    precisions = list(facts["layers_by_precision"])
    lines.append("  " + f"{'kind':22}" + "".join(f"{name:>7}" for name in precisions))
    for kind, counts in facts["layers"].items():
        lines.append("  " + f"{kind:22}" + "".join(f"{counts.get(name, ''):>7}" for name in precisions))
    totals = facts["layers_by_precision"].values()
    lines.append("  " + f"{'all':22}" + "".join(f"{count:>7}" for count in totals))
    lines += ["", *_notes(facts)] if _notes(facts) else []
    return "\n".join(line.rstrip() for line in lines)


def _header(manifest: dict[str, Any]) -> list[str]:
    batch, weights, compiler = manifest["batch"], manifest["weights"], manifest.get("compiler")
    digest = f", sha256 {weights['sha256'][:12]}…" if "sha256" in weights else ""
    lines = [
        f"{manifest['recipe']['name']}, {manifest['precision']}, opset {manifest['opset']}, "
        f"batch {batch['min']}-{batch['max']} (best at {batch['opt']})",
        f"  weights   {weights['kind']}: {weights['source']}{digest}",
        f"  compiler  {_compiler(compiler)}",
        f"  made by   {manifest['created_by']}",
    ]
    if weights["kind"] == "random":
        lines.append("  RANDOM WEIGHTS: for timing and tests; its poses mean nothing")
    if calibration := manifest.get("calibration"):
        lines += _calibration(calibration)
    return lines


def _calibration(calibration: dict[str, Any]) -> list[str]:
    details = calibration.get("details", {})
    lines = [f"  ranges    {calibration['table']}: {calibration['method']}, {calibration['images']} crops"]
    if "int8_share_of_macs" in details:
        cost = f", measured to cost {details['measured_drop']} points" if "measured_drop" in details else ""
        lines.append(f"  int8      {100 * details['int8_share_of_macs']:.1f} % of the multiply-accumulates{cost}")
    reasons: dict[str, list[str]] = {}
    for name, reason in details.get("float", {}).items():
        reasons.setdefault(reason, []).append(name)
    return lines + [f"  float     {reason}: {', '.join(names)}" for reason, names in reasons.items()]


def _compiler(compiler: dict[str, Any] | None) -> str:
    if compiler is None:
        return "none: the graph alone, which runs on ONNX Runtime; compile it with `sdk build-engine --rebuild`"
    options = ", ".join(f"{key} {value}" for key, value in compiler.get("options", {}).items())
    return f"{compiler['name']} {compiler['version']}, target {compiler['target']}" + (
        f" ({options})" if options else ""
    )


def _notes(facts: dict[str, Any]) -> list[str]:
    notes = [f"note: {note}" for note in facts["manifest"].get("notes", [])]
    return notes + [f"fp32: {name}" for name in facts["fp32_layers"]]
