"""What docs/algorithms.md shows runs, and its table names every algorithm and option."""

from __future__ import annotations

import re
from pathlib import Path

from sparsemeta.meta import ALGORITHMS

PAGE = (Path(__file__).parents[2] / "docs" / "algorithms.md").read_text(encoding="utf-8")


def test_python_blocks_run():
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S):
        exec(compile(block, "algorithms.md", "exec"), names)
    assert names["logits"].shape == (4, 25, 5)


def test_the_table_is_complete():
    rows = {row[1]: row for row in re.findall(r'^(\| `"([^"]+)"` \| .*)$', PAGE, re.M)}
    assert list(rows) == list(ALGORITHMS)
    for name, algorithm in ALGORITHMS.items():
        own = set(algorithm.options) - {"allow_unused", "adapt_only"}
        assert algorithm.learner.__name__ in rows[name][0] and all(f"`{option}`" in rows[name][0] for option in own)
