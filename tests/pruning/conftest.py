"""Tiny networks in float64, and data for them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparsemeta.pruning import Probe


@pytest.fixture(autouse=True)
def _one_thread(_threads) -> None:
    """Tensors this small gain nothing from more, and a sum in one thread is the same sum every time."""
    torch.set_num_threads(1)


@pytest.fixture
def net() -> nn.Sequential:
    """Convolution with groups and bias, batch norm, a smooth activation, a linear layer; float64."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), nn.BatchNorm2d(4, track_running_stats=False), nn.Softplus(),
        nn.Conv2d(4, 4, 1, bias=False), nn.Softplus(), nn.Flatten(), nn.Linear(36, 3),
    ).double()  # fmt: skip


@pytest.fixture
def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(torch.randn(5, 2, 6, 6, dtype=torch.float64), torch.arange(5) % 3) for _ in range(2)]


@pytest.fixture
def probe(batches) -> Probe:
    return Probe.supervised(batches)
