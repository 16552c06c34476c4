"""Every test of an operation runs on one thread, unless it sets another number."""

from __future__ import annotations

import pytest
import torch


def pytest_configure(config: pytest.Config) -> None:
    """The definition pads an even kernel with "same" in a copy and says so."""
    config.addinivalue_line("filterwarnings", "ignore:Using padding='same'")


@pytest.fixture(autouse=True)
def _one_thread(_threads) -> None:  # `_threads` puts the number back
    """The problems are small, and threads that compete for a core wait for each other."""
    torch.set_num_threads(1)
