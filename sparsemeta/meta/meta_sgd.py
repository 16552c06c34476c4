"""Meta-SGD: a learned rate for every weight."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .maml import MAML


class MetaSGD(MAML):
    """Meta-SGD (Li et al. 2017, arXiv 1707.09835, equation 2): every weight has a rate, learned with it.

    Rates may become negative, as there. A sparse layer has rates only for the weights that it keeps.

    Args:
        model, options: as for ``MAML``.
        lr: where every rate starts.

    Attributes:
        lr: ``lr[name]`` is the parameter with the rates of the model's parameter ``name``, of its shape.
    """

    def __init__(self, model: nn.Module, lr: float = 0.01, **options: Any):
        super().__init__(model, lr, **options)
        self.learn_rates({name: torch.full_like(p, lr) for name, p in self.start().items()})
