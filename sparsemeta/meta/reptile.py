"""Reptile: towards the adapted weights."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .maml import MAML


class Reptile(MAML):
    """Reptile (Nichol et al. 2018, arXiv 1803.02999, algorithm 2): the outer gradient is ``theta - theta_K``.

    The query set has no part in it, no second derivative is taken, and only what the inner loop moves is trained. The
    inner loop is plain gradient descent, on the same support set in every step.

    Args:
        model, lr, options: as for ``MAML``.
    """

    uses_query = False

    def __init__(self, model: nn.Module, lr: Any = 0.01, **options: Any):
        super().__init__(model, lr, **{**options, "first_order": True})

    def objective(self, clone: MAML, query_loss: Tensor, query_x: Tensor, query_y: Tensor) -> Tensor:
        """Half the squared distance to the adapted weights, whose gradient is ``theta - theta_K``."""
        return sum((p - clone.weights[name].detach()).square().sum() for name, p in self.start().items()) / 2
