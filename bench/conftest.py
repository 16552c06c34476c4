"""For `pytest bench/ --benchmark-json FILE`: the cases of the command, to follow each way over time.

pytest-benchmark times one after the other, so for ratios take the command: it times them in turns.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from .case import Case


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Without `-n` nothing runs in parallel; the `--dist` of pyproject makes pytest-benchmark believe that it does."""
    if not getattr(config.option, "numprocesses", None):
        config.option.dist = "no"


@pytest.fixture
def time_way(benchmark) -> Callable[[Case, str], None]:
    """Check and time one candidate, `"role: name"`, of a case."""

    def run(case: Case, way: str) -> None:
        torch.set_num_threads(case.labels["threads"])
        [candidate] = [c for c in case.candidates() if f"{c.role}: {c.name}" == way]
        assert candidate.error(candidate.run()) <= case.tolerance
        benchmark.group = " ".join(map(str, case.labels.values()))
        benchmark.extra_info.update(case.labels, way=way, ideal=case.ideal)
        benchmark(candidate.run)

    return run
