"""Tests of the Triton kernels on CPU tensors: they need TRITON_INTERPRET=1 (`../test_interpreted.py` sets it)."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest
import torch

TESTS = Path(__file__).parents[2]
sys.path[:0] = [str(TESTS), str(TESTS / "ops")]  # the tolerances, and the cases and definition of the operations

# without the interpreter the kernels want a GPU, and without Triton there is nothing to collect
collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" and importlib.util.find_spec("triton") else ["*"]


def pytest_configure(config: pytest.Config) -> None:
    """The definition pads an even kernel with "same" in a copy and says so."""
    config.addinivalue_line("filterwarnings", "ignore:Using padding='same'")


@pytest.fixture(autouse=True)
def _one_thread_and_poison(_threads, poison) -> None:
    """The problems are small; what no kernel has written is NaN."""
    torch.set_num_threads(1)
