"""README.md says what is true: its Python runs, its commands run, its links lead somewhere.

The two set-up commands are run by `.ci/run`, each in the fresh virtual environment that it makes.
"""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from sdk.cli import VERBS, main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^(?:<!-- ([\w-]+) -->\n)?```(\w+)\n(.*?)^```", README, re.M | re.S)
PYTHON = [text for _, language, text in BLOCKS if language == "python"]
COMMANDS = [
    line.split("#")[0].strip()
    for name, language, text in BLOCKS
    if language == "bash" and not name
    for line in text.replace("\\\n", " ").splitlines()
    if line.startswith("sdk ")
]


@pytest.fixture
def street(tmp_path, monkeypatch):
    """A folder with what the README's examples name."""
    cv2 = pytest.importorskip("cv2")
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(5).integers(0, 255, (540, 720, 3), np.uint8)
    cv2.imwrite("street.jpg", cv2.GaussianBlur(noise, (0, 0), 3))
    return tmp_path


@pytest.mark.native
@pytest.mark.parametrize("text", PYTHON, ids=lambda text: text.splitlines()[-1].strip()[:40])
def test_python_blocks_run(text, street):
    exec(compile(text, "README.md", "exec"), {})
    assert (street / "poses.jpg").is_file()


def test_the_set_up_commands_are_there():
    names = [name for name, language, _ in BLOCKS if name and language == "bash"]
    assert names == ["main-job", "tests"]


@pytest.mark.native
@pytest.mark.torch
def test_commands_run_in_order(street, capsys):
    for command in COMMANDS:
        assert main(shlex.split(command)[1:]) == 0, f"{command}\n{capsys.readouterr().err}"


def test_every_verb_is_mentioned():
    assert [verb for verb in VERBS if f"sdk {verb}" not in README] == []


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_links_lead_to_files(target):
    assert (ROOT / target).exists()
