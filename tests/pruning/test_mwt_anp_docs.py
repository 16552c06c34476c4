"""The code of docs/mwt-anp.md runs, and the configurations that it names are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "mwt-anp.md").read_text(encoding="utf-8")


def test_the_code_runs():
    exec(compile("\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)), "docs/mwt-anp.md", "exec"), {})


def test_the_configurations_are_there():
    names = re.findall(r"configs/find/\S+\.toml", PAGE)
    assert len(names) == 2 and all((ROOT / name).is_file() for name in names)
