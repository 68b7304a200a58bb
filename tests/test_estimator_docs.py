"""The code blocks of docs/python.md, run in order in one folder as a reader would."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sdk.cli import main
from sdk.skeletons import skeleton_by_name
from tests.support.engines import SMALL, pooled_simcc_graph, wrapped_engine

pytestmark = pytest.mark.native
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
cv2 = pytest.importorskip("cv2")

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "python.md").read_text()
BLOCKS = {language: re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) for language in ("python", "bash")}


PARTS = {
    "rtmpose-m-256x192": "coco17",
    "rtmpose-m-hand5-256x256": "hand21",
    "rtmpose-m-face6-256x256": "lapa106",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the engine, photographs, clip and boxes that the page speaks of."""
    wrapped_engine(pooled_simcc_graph(tmp_path / "g.onnx", SMALL), tmp_path / "rtmpose-s-256x192.fp16", SMALL)
    for name, joints in PARTS.items():
        recipe = replace(SMALL, skeleton=skeleton_by_name(joints))
        wrapped_engine(pooled_simcc_graph(tmp_path / f"{joints}.onnx", recipe), tmp_path / f"{name}.fp16", recipe)
    frame = np.random.default_rng(0).integers(0, 256, (480, 720, 3), np.uint8)
    (tmp_path / "photos").mkdir()
    for name in ("street.jpg", "photos/1.jpg", "photos/2.jpg"):
        cv2.imwrite(str(tmp_path / name), frame)
    writer = cv2.VideoWriter(str(tmp_path / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (720, 480))
    for _ in range(7):
        writer.write(frame)
    writer.release()
    (tmp_path / "boxes.csv").write_text("file,x1,y1,x2,y2\n1.jpg,10,10,90,200\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_blocks_run(folder, capsys):
    assert len(BLOCKS["python"]) == 8
    names = {}
    for block in BLOCKS["python"]:
        exec(compile(block, "docs/python.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "box 1 has no area: x2 must exceed x1 (got x1=40.0, x2=40.0)" in printed
    assert len(re.findall(r"^\d+ \[", printed, re.MULTILINE)) == 7  # one line a frame of the clip, the id first
    assert (folder / "poses.jpg").exists() and len(names["records"]) == 2
    assert names["wrists"].shape == (2, 2)
    assert names["detailed"].keypoints.shape == (2, 17 + 42 + 106, 2)


@pytest.mark.data
def test_the_commands_run(folder, shared, capsys):
    (folder / "rtmdet-nano-person.onnx").symlink_to(shared / "models" / "rtmdet-nano-person.onnx")
    (commands,) = BLOCKS["bash"]
    for command in commands.splitlines():
        program, *words = shlex.split(command)
        assert program == "sdk" and main(words) == 0
    assert len((folder / "poses.jsonl").read_text().splitlines()) == 9
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["1.jpg", "2.jpg", "clip.mp4"]
    assert "engines run here on: cpu" in capsys.readouterr().out
