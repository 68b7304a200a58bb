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
        assert names["joints"].shape == (1, 17, 3)
