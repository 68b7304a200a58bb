"""The site of tools/site.py builds without a warning, finds what is looked for, and takes pages that nobody named."""

import json
import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors_of(text):
    """As GitHub and the site make them of headings."""
    heads = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in LINK.findall(re.sub(r"```.*?```|`[^`]*`", "", page.read_text(), flags=re.S)):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page if not path else (page.parent / path).resolve()
        assert target.exists(), f"{link}: no such file"
        assert not anchor or anchor in anchors_of(target.read_text()), f"{link}: no such heading"


@pytest.fixture
def site():
    spec = spec_from_file_location("documentation_site", ROOT / "tools/site.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_page_that_nobody_named_is_in_the_navigation(site, tmp_path):
    (tmp_path / "docs").mkdir()
    for name in ("README.md", "docs/gpu.md", "docs/unheard-of.md"):
        (tmp_path / name).write_text("# A page\n")
    sections = {title: pages for entry in site.navigation(tmp_path) for title, pages in entry.items()}
    assert sections["More pages"] == ["docs/unheard-of.md"]
    assert sections["Devices"] == ["docs/gpu.md"] and "Training" not in sections


def test_every_room_that_users_import_has_its_reference(site):
    modules = site.modules()
    assert "sdk" in modules[""] and "sdk.people.estimator" in modules["people"]
    assert not [name for names in modules.values() for name in names if name.startswith("sdk.cli")]


def test_the_site_builds_without_a_warning_and_finds_things(tmp_path):
    pytest.importorskip("material", reason="mkdocs-material is not installed: the extra [docs] brings it")
    pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed: the extra [docs] brings it")
    command = [sys.executable, str(ROOT / "tools/site.py"), "--output", str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    titles = {
        entry["title"]: entry for entry in json.loads((tmp_path / "site/search/search_index.json").read_text())["docs"]
    }
    assert any("PoseEstimator" in title for title in titles) and "SimCC Edge SDK" in titles
    assert (tmp_path / "site/docs/gpu.html").exists()
