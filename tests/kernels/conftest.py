"""Where the tests of the Triton kernels find the tolerances, and the cases and definition of the operations."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "ops"), str(TESTS / "kernels")]


def pytest_configure(config: pytest.Config) -> None:
    """The definition pads an even kernel with "same" in a copy and says so."""
    config.addinivalue_line("filterwarnings", "ignore:Using padding='same'")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU, with the reason."""
    skip = pytest.mark.skip(reason="PyTorch finds no CUDA device here; `make gpu` runs these on one")
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(skip)
