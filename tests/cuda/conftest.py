"""Fixtures of the CUDA tests. Only those marked `gpu` need one; the rest run the kernels' programs on the CPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sparsemeta.backends import cuda

sys.path.insert(0, str(Path(__file__).parents[1] / "ops"))  # the table of cases and its definition


def pytest_configure(config: pytest.Config) -> None:
    """The definition pads an even kernel with "same" in a copy and says so."""
    config.addinivalue_line("filterwarnings", "ignore:Using padding='same'")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    if missing := cuda.missing():
        skip = pytest.mark.skip(reason=f"needs a GPU: {'; '.join(missing)}")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(skip)


@pytest.fixture(autouse=True)
def _one_thread(_threads) -> None:  # `_threads` puts the number back
    torch.set_num_threads(1)


@pytest.fixture
def emulated(poison) -> Iterator[None]:
    """Backend "cuda" on the CPU; outputs and workspaces start as NaN."""
    with cuda.emulation():
        yield
