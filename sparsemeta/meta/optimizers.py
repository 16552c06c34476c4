"""The outer optimisers, and the schedule of their rate."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .config import TrainConfig

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
MOMENTUM = 0.9  # of sgd


def outer_optimizer(parameters: Sequence[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    """The optimiser that ``config`` names, over ``parameters``, fused where PyTorch can."""
    options = {"momentum": MOMENTUM} if config.optimizer == "sgd" else {}
    fused = parameters[0].device.type in ("cpu", "cuda")
    return OPTIMIZERS[config.optimizer](parameters, lr=config.meta_lr, fused=fused, **options)


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Every group's rate becomes ``factor`` times the one it was made with."""
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
