"""`sdk inspect`: an engine's manifest, files (hashes verified), tensors, and the precision of each kind of layer.

Of a graph made elsewhere: what it would be taken for, before anything is built of it.

sdk inspect rtmpose-s-256x192.fp16
sdk inspect end2end.onnx
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from sdk.cli._recipes import size_hw
from sdk.errors import UsageError
from sdk.manifest import MANIFEST_NAME

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("engine", metavar="ENGINE", help="an engine folder, a bundled engine's name, or a graph")
    parser.add_argument("--size", type=size_hw, metavar="HxW", help="of a graph's crops, where it leaves them open")
    parser.add_argument("--json", action="store_true", help="everything, for machines")


def run(arguments: argparse.Namespace) -> int:
    path = Path(arguments.engine)
    if _is_graph(path):
        from sdk.toolchain.detectors.taken import detector_facts
        from sdk.toolchain.seen import facts_of_graph

        detector = detector_facts(path, arguments.size)
        if detector["kind"] is not None:
            print(json.dumps(detector, indent=1) if arguments.json else "\n".join(_detector_page(detector)))
            return 0
        seen = facts_of_graph(path, arguments.size)
        print(json.dumps(seen, indent=1) if arguments.json else "\n".join(_graph_page(seen, arguments.size)))
        return 0
    if arguments.size is not None:
        raise UsageError("--size is for a graph, which may leave its size open; an engine has its own")
    from sdk.manifest import open_any_engine
    from sdk.runtime.opening import engine_from
    from sdk.toolchain.inspect import facts_of_engine

    known = (path / MANIFEST_NAME).is_file()
    facts = facts_of_engine(open_any_engine(path) if known else engine_from(arguments.engine))
    print(json.dumps(facts, indent=1) if arguments.json else _page(facts))
    return 0


def _is_graph(path: Path) -> bool:
    """An ONNX file, a deploy zip, or a folder with an ONNX file that is no engine's."""
    if path.is_dir():
        return not (path / MANIFEST_NAME).exists() and any(path.glob("*.onnx"))
    return path.suffix in (".onnx", ".zip")


def _graph_page(seen: dict[str, Any], size_hw: tuple[int, int] | None) -> list[str]:
    size = "x".join(map(str, seen["input"]["size_hw"]))
    known = seen["joints"] is not None
    what = (
        f"SimCC, {seen['joints']} joints, split ratio {seen['split_ratio']:g}" if known else "no SimCC pair of outputs"
    )
    lines = [f"{seen['file']}: {what}, crops of {size}", ""]
    rows = {
        "file": f"opset {seen['opset']}, {seen['precision']}, {seen['parameters'] / 1e6:.2f} M parameters",
        "recipe": seen["recipe"] and f"'{seen['recipe']}', in its metadata",
        "input": _input_line(seen["input"]),
        "outputs": ", ".join(f"{n} {' x '.join(map(str, shape))}" for n, shape in seen["outputs"].items()),
        "axes": seen.get("axes_problem") or (seen["axes"] and _axes_line(seen)),
        "dropped": seen["axes"] and ", ".join(n for n in seen["outputs"] if n not in seen["axes"].values()),
        "batch": seen["batch"] and f"{seen['batch']}" + (f": {seen['batch_note']}" if seen["batch_note"] else ""),
        "beside": seen["beside"],
        "changes": "; ".join(seen["changes"]),
        "refused": seen["batch_note"] if known and seen["batch"] is None else None,
    }
    lines += [f"  {name:9} {text}" for name, text in rows.items() if text]
    return lines if seen["recipe"] else [*lines, "", *_asked(seen, size_hw)]


def _detector_page(seen: dict[str, Any]) -> list[str]:
    source = seen["input"]
    rows = {
        "input": f"{source['name']}, {_fed(source)}",
        "outputs": ", ".join(f"{n} {' x '.join(map(str, shape)) or 'scalar'}" for n, shape in seen["outputs"].items()),
        "read": _read(seen["form"]),
        "inside": "suppresses boxes itself: an engine is cut before that" if seen["suppresses"] else None,
        "opset": str(seen["opset"]),
    }
    size, told = f"{source['height']}x{source['width']}", ""
    if seen["size_open"]:
        rows["size"] = f"left open by the file, and looked at as {size}; a build must be told it"
        told = f" --size {size}"
    lines = [f"{seen['file']}: a person detector, form '{seen['kind']}', input of {size}", ""]
    lines += [f"  {name:9} {text}" for name, text in rows.items() if text]
    return [*lines, "", f"  sdk build-engine --onnx {seen['file']}{told}"]


def _fed(source: dict[str, Any]) -> str:
    """How a detector's input is filled, in a line."""
    mean, std = (" ".join(f"{value:g}" for value in source[key]) for key in ("mean", "std"))
    places = {"corner": "in the upper left corner", "centre": "in the centre", "stretch": "stretched over all of it"}
    border = "" if source["place"] == "stretch" else f" of {source['border']}"
    return f"{source['colour'].upper()}, mean {mean}, std {std}; the frame {places[source['place']]}{border}"


def _read(form: dict[str, Any]) -> str:
    """How a detector's outputs are read, in a line."""
    parts = [f"boxes {form['box_form']} in {form['units']}", f"persons are class {form['person_class']}"]
    parts += [f"strides {' '.join(map(str, form['strides']))}"] if form["strides"] else []
    parts += [f"scores by {form['activation']}"] if form["activation"] != "none" else []
    return "; ".join([*parts, "suppressed by the run time" if form["suppress"] else "none of them twice"])


def _input_line(source: dict[str, Any]) -> str:
    inside = source["normalisation_inside"]
    parts = [f"{source['name']} {source['dtype']}, {source['layout']}"]
    if inside:
        numbers = (" ".join(f"{value:.6g}" for value in inside[key]) for key in ("mean", "std"))
        parts.append("normalised inside: mean {}, std {}".format(*numbers))
    elif source["dtype"] == "uint8":
        parts.append("plain pixels 0..255")
    parts += ["turns the colour channels round"] if source["turns_channels"] else []
    return "; ".join(parts)


def _axes_line(seen: dict[str, Any]) -> str:
    pairs = ", ".join(f"{target} = '{name}'" for target, name in seen["axes"].items())
    values = "probabilities (a softmax inside)" if seen["probabilities"] else "logits"
    return "; ".join([pairs, values, *seen["axes_notes"]])


def _asked(seen: dict[str, Any], size_hw: tuple[int, int] | None) -> list[str]:
    """What has to be told, and the command that tells it."""
    if seen["asks"] == ["recipe"]:
        return ["not known: what it is; give a RECIPE or a --recipe-file with --onnx"]
    words = {
        "skeleton": "the joints' names",
        "convention": "mean, std, colour order, padding and score rule",
        "pixels": "what the input is fed with, unless the normalisation inside is the convention's own",
    }
    options = {
        "skeleton": f"--skeleton {'|'.join(seen['skeletons']) or 'NAME'}",
        "convention": "--convention mmpose|rtmlib|simcc|dwpose",
        "pixels": "[--pixels 0..255|0..1|normalised]",
    }
    asked = " ".join(options[name] for name in seen["asks"])
    asked += "" if size_hw is None else " --size {}x{}".format(*size_hw)
    return [
        f"no graph says: {'; '.join(words[name] for name in seen['asks'])}",
        f"  sdk build-engine --onnx {seen['file']} {asked}",
    ]


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
    if "launches" in facts:
        lines += ["", f"launches: {_launches(facts['launches'])}"]
    lines += ["", *_notes(facts)] if _notes(facts) else []
    return "\n".join(line.rstrip() for line in lines)


def _launches(launches: dict[str, Any] | None) -> str:
    if launches is None:
        return "not counted yet; a build or `sdk build-engine --rebuild` on the GPU that runs the plan counts them"
    return f"{launches['kernels']} kernels a call for {launches['persons']} persons, counted with {launches['by']}"


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
    if manifest["recipe"].get("kind") == "detector":
        recipe = manifest["recipe"]
        lines += [
            f"  detects   persons that score {recipe['score_threshold']:g} and more",
            f"  input     {_fed(recipe['input'])}",
        ]
        lines += [f"  read      {_read(recipe['form'])}, overlap {recipe['iou']:g}"]
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
