"""The code blocks of docs/kernels.md run."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.native

pytest.importorskip("sdk._native", exc_type=ImportError)

PAGE = Path(__file__).resolve().parents[1] / "docs" / "kernels.md"


def test_code_blocks_run():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        names = {}
        exec(compile(block, str(PAGE), "exec"), names)
        found = names["joints"] if "joints" in names else names["boxes_xyxy"]
        assert found.shape in ((1, 17, 3), (0, 4))
