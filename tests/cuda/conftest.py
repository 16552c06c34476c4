"""Fixtures of the CUDA tests. None needs a GPU but those that ask for `gpu`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparsemeta.backends import cuda

sys.path.insert(0, str(Path(__file__).parents[1] / "ops"))  # the table of cases and its definition


@pytest.fixture
def emulated(poison) -> Iterator[None]:
    """Backend "cuda" on the CPU."""
    with cuda.emulation():
        yield
