"""docs/sources.md says what is true: its Python runs, and every option of sources and of results is in it."""

import argparse
import re
from pathlib import Path

import pytest

from sdk.cli._opening import add_source_arguments
from sdk.cli._results import add_result_arguments
from tests.support.predict import write_clip

PAGE = (Path(__file__).resolve().parents[1] / "docs/sources.md").read_text()


@pytest.mark.native
def test_its_python_runs(tmp_path, monkeypatch):
    cv2 = pytest.importorskip("cv2")
    pytest.importorskip("onnxruntime")
    assert cv2.__version__
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "clip.avi").rename(tmp_path / "clip.mp4")
    names = {}
    for text in re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S):
        exec(compile(text, "docs/sources.md", "exec"), names)
    assert names["frames"].counts.frames == 5 and len((tmp_path / "poses.csv").read_text().splitlines()) >= 5


def test_every_option_is_told():
    parser = argparse.ArgumentParser()
    add_source_arguments(parser)
    add_result_arguments(parser.add_argument_group("results"))
    options = [name for action in parser._actions for name in action.option_strings if name.startswith("--")]
    assert len(options) > 10 and [name for name in options if name not in PAGE and name != "--help"] == []
