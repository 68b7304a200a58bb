#!/usr/bin/env python3
"""The documentation as a site that can be searched: the pages of this repository, and one for each module's docstrings.

    pip install -e '.[docs]' && python tools/site.py --output site          # then: python -m http.server -d site

Built with mkdocs-material; nothing is fetched, by the build or by the pages. Every link and anchor inside the site is
checked, and a warning fails the build. Pages keep their places in the repository, so that their links serve both.
A page of docs/ that `SECTIONS` does not name stands under "More pages".
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = {
    "Start": ["README.md", "docs/python.md", "examples/README.md"],
    "Whole frames": ["docs/detectors.md", "docs/sources.md", "docs/live.md", "docs/scale.md", "docs/triton.md"],
    "Engines": ["docs/networks.md", "docs/engines.md", "docs/precision.md", "docs/int8.md"],
    "Devices": ["docs/gpu.md", "docs/jetson.md", "docs/kernels.md"],
    "Accuracy and speed": ["docs/verify.md", "docs/benchmark.md", "docs/bundled-network.md", "docs/ablation.md"],
    "Training": ["docs/training.md"],
    "The project": [
        *("docs/architecture.md", "docs/decisions.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"),
        "docs/release.md",
    ],
}
ROOMS = {  # of the reference; rooms that are not there are left out
    "": "The package and shared words",
    "people": "sdk.people",
    "media": "sdk.media",
    "live": "sdk.live",
    "scale": "sdk.scale",
    "runtime": "sdk.runtime",
    "evaluate": "sdk.evaluate",
    "serving": "sdk.serving",
    "toolchain": "sdk.toolchain",
    "networks": "sdk.networks",
    "training": "sdk.training",
}
COPIED = ("*.md", "docs/**/*", "examples/*")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="what was there is replaced")
    output = parser.parse_args().output.resolve()
    try:
        import material  # noqa: F401
        import mkdocstrings  # noqa: F401
    except ImportError as error:
        sys.exit(f"tools/site.py needs mkdocs-material and mkdocstrings ({error}): pip install -e '.[docs]'")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        settings = work / "mkdocs.yml"
        settings.write_text(json.dumps(configuration(copied(work / "pages"), output)))  # JSON is YAML
        quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
        command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "-f", str(settings)]
        return subprocess.run(command, env=quiet, check=False).returncode


def copied(pages: Path) -> Path:
    """The pages that are there, and a page for each public module."""
    for pattern in COPIED:
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file():
                target = pages / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
    for names in modules().values():
        for name in names:
            page = pages / f"reference/{name}.md"
            page.parent.mkdir(exist_ok=True)
            page.write_text(f"# {name}\n\n::: {name}\n")
    return pages


def modules() -> dict[str, list[str]]:
    """Room -> its modules with public names, in the order of `ROOMS`."""
    found: dict[str, list[str]] = {room: [] for room in ROOMS}
    for path in sorted((ROOT / "sdk").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        room = parts[1] if len(parts) > 2 else ""
        if room in found and "__all__" in assigned(path):
            found[room].append(name)
    return found


def assigned(path: Path) -> set[str]:
    """Names that a module's top level binds by `=`."""
    nodes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Assign)]
    return {target.id for node in nodes for target in node.targets if isinstance(target, ast.Name)}


def navigation(pages: Path) -> list[dict[str, list[str]]]:
    named = [page for section in SECTIONS.values() for page in section]
    there = sorted(str(path.relative_to(pages)) for path in [*pages.glob("*.md"), *pages.glob("docs/**/*.md")])
    sections = {title: [page for page in section if (pages / page).exists()] for title, section in SECTIONS.items()}
    sections["More pages"] = [page for page in there if page not in named]
    names = modules()
    reference = [{title: [f"reference/{name}.md" for name in names[room]]} for room, title in ROOMS.items()]
    kept = [{title: section} for title, section in sections.items() if section]
    return [*kept, {"Reference": [entry for entry in reference if next(iter(entry.values()))]}]


def configuration(pages: Path, output: Path) -> dict[str, object]:
    """mkdocs' settings."""
    docstrings = {"docstring_style": None, "show_root_heading": False, "show_source": False, "members_order": "source"}
    shown = {"show_root_toc_entry": False, "show_signature_annotations": True, "separate_signature": True}
    handlers = {"python": {"paths": [str(ROOT)], "options": {**docstrings, **shown, "line_length": 100}}}
    return {
        "site_name": "SimCC Edge SDK",
        "docs_dir": str(pages),
        "site_dir": str(output),
        "use_directory_urls": False,  # so that the pages open from a disk too
        "theme": {
            "name": "material",
            "font": False,
            # prune: a page lists only its own part of the 300, which makes 17 MB of 41
            "features": [
                *("navigation.indexes", "navigation.prune", "navigation.top"),
                *("search.highlight", "content.code.copy"),
            ],
            "palette": [
                {"media": "(prefers-color-scheme: light)", "scheme": "default"},
                {"media": "(prefers-color-scheme: dark)", "scheme": "slate"},
            ],
        },
        "plugins": ["search", {"mkdocstrings": {"handlers": handlers, "enable_inventory": True}}],
        "markdown_extensions": ["tables", "fenced_code", "pymdownx.highlight", "pymdownx.superfences", "toc"],
        "validation": {
            "nav": {"omitted_files": "warn", "not_found": "warn"},
            "links": {"not_found": "warn", "anchors": "warn", "absolute_links": "warn", "unrecognized_links": "warn"},
        },
        "nav": navigation(pages),
    }


if __name__ == "__main__":
    sys.exit(main())
