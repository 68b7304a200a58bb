"""docs/verify.md names the command of every published figure of the catalogue, and nothing the code does not do."""

import re
from pathlib import Path

import pytest

from sdk.cli import _parser
from sdk.evaluate.datasets.dataset import DATASET_KINDS
from sdk.evaluate.scores.published import COMMANDS, command_for
from sdk.recipe import catalogue

DOCS = Path(__file__).resolve().parents[1] / "docs"
CATALOGUE = catalogue()
FIGURES = [(name, figure) for name, recipe in CATALOGUE.items() for figure in recipe.published]


def test_every_published_figure_has_its_row():
    page = (DOCS / "verify.md").read_text()
    missing = []
    for name, figure in FIGURES:
        command = command_for(CATALOGUE[name], figure)
        dataset = f"`{command.split('--dataset ')[1].split()[0]}`" if command else "-"
        value = f"{figure.value:.2f}" if figure.metric == "NME" else f"{figure.value:.1f}"
        row = f"| `{name}` | {figure.dataset} {figure.metric} {value} | {dataset} | {figure.source} |"
        if row not in page:
            missing.append(row)
    assert not missing, "rows to put into docs/verify.md:\n" + "\n".join(missing)


def test_the_commands_are_on_the_page_and_the_verb_takes_them():
    page = (DOCS / "verify.md").read_text()
    for files in COMMANDS.values():
        line = f"sdk verify NAME.fp32 {files} --flip-test"
        assert line in page
        words = line.split()[1:]
        assert _parser(words).parse_args(words).flip_test


@pytest.mark.parametrize("page", ["verify.md", "benchmark.md"])
def test_command_lines_of_the_pages_parse(page):
    text = (DOCS / page).read_text()
    lines = re.findall(r"^    sdk ((?:verify|benchmark) .*)$", text, re.M)
    assert lines
    for line in lines:
        _parser(line.split()).parse_args(line.split())


def test_every_kind_of_dataset_is_described():
    page = (DOCS / "verify.md").read_text()
    assert all(f"`{kind}`" in page for kind in DATASET_KINDS)


def test_the_flip_test_is_asked_for_where_the_protocol_has_it():
    recipes = CATALOGUE
    commands = {name: command_for(recipes[name], figure) for name, figure in FIGURES}
    assert "--flip-test" in commands["rtmpose-s-256x192"] and "--dataset coco" in commands["rtmpose-s-256x192"]
    assert "--head-boxes" in commands["mpii-hrnet-w32-64x64"]
