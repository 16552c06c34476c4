"""One thread, unless a test sets another number: the tables are small, and threads that compete for cores wait."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread(_threads) -> None:  # `_threads` puts the number back
    torch.set_num_threads(1)
