"""What docs/pruning.md shows runs, its blocks one after another."""

from __future__ import annotations

import re
from pathlib import Path

from sparsemeta.pruning import SCORES

PAGE = Path(__file__).parents[2] / "docs" / "pruning.md"


def test_python_blocks_run():
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S):
        exec(compile(block, PAGE.name, "exec"), names)
    del SCORES["relative magnitude"]
    assert names["dead"].effective_sparsity >= names["found"].ticket.sparsity
