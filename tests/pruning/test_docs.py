"""What docs/pruning.md shows runs: its Python blocks one after another, and its commands' options exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import typer

from sparsemeta.cli import app
from sparsemeta.pruning import SCORES

PAGE = (Path(__file__).parents[2] / "docs" / "pruning.md").read_text(encoding="utf-8")


def test_python_blocks_run():
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S):
        exec(compile(block, "pruning.md", "exec"), names)
    del SCORES["relative magnitude"]
    assert names["dead"].effective_sparsity >= names["found"].ticket.sparsity


def test_commands_exist():
    lines = re.findall(r"^sparsemeta find .*", PAGE, re.M)
    options = {option for parameter in typer.main.get_command(app).commands["find"].params for option in parameter.opts}
    assert lines and all(options.issuperset(w for w in shlex.split(line) if w.startswith("--")) for line in lines)
