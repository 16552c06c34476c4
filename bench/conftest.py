"""For `pytest bench/`."""

from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Without `-n` nothing runs in parallel; the `--dist` of pyproject makes pytest-benchmark believe that it does."""
    if not getattr(config.option, "numprocesses", None):
        config.option.dist = "no"
