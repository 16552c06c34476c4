"""MAML++: learned rates of each step and layer, losses of every step, and schedules of both."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .maml import MAML


class MAMLPlusPlus(MAML):
    """MAML++ (Antoniou et al. 2019, arXiv 1810.09502, section 4).

    Rates are learned for each inner step and each parameter tensor (LSLR). In the first ``multi_step_until``
    meta-steps the outer loss is a weighted sum of the query losses after every inner step (MSL), with equal weights at
    first, which move linearly to the last step. The first ``first_order_until`` meta-steps are first order (DA). With
    ``bn_mode="per_step"`` batch norm has statistics and affine parameters of each step (BNRS, BNWB).

    Args:
        model, options: as for ``MAML``.
        lr: where every rate starts.
        steps: inner steps with rates of their own; further ones take those of the last.
        multi_step_until, first_order_until: meta-steps; 0 for never.

    Attributes:
        lr: ``lr[name]`` is the parameter ``[steps]`` with the rates of the model's parameter ``name``.
        meta_steps: meta-steps taken, which both schedules go by.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float = 0.01,
        steps: int = 5,
        multi_step_until: int = 0,
        first_order_until: int = 0,
        **options: Any,
    ):
        super().__init__(model, lr, steps=steps, **options)
        self.learn_rates({name: p.new_full([steps], lr) for name, p in self.start().items()})
        self.multi_step_until, self.first_order_until = multi_step_until, first_order_until
        self.register_buffer("meta_steps", torch.zeros((), dtype=torch.int64))
        self.path: list[MAMLPlusPlus] = []

    def rates(self, names: Any) -> list[Tensor]:
        """Those of the inner step that this clone takes next."""
        return [self.lr[name][min(self.step, len(self.lr[name]) - 1)] for name in names]

    def clone(self, first_order: bool | None = None, *args: Any, **kwargs: Any) -> MAMLPlusPlus:
        """As ``MAML.clone``, first order while the schedule says so."""
        if first_order is None and self.weights is None and int(self.meta_steps) < self.first_order_until:
            first_order = True
        new = super().clone(first_order, *args, **kwargs)
        new.path = []
        return new

    def adapt(self, *args: Any, **kwargs: Any) -> None:
        """As ``MAML.adapt``; keeps the weights between steps while their query losses count."""
        if self.step and self.multi_step_until > int(self.meta_steps):
            self.path.append(super().clone())
        super().adapt(*args, **kwargs)

    def objective(self, clone: MAML, query_loss: Tensor, query_x: Tensor, query_y: Tensor) -> Tensor:
        """The query losses after every inner step, weighted."""
        if not clone.path:
            return query_loss
        between = torch.stack([F.cross_entropy(early(query_x), query_y) for early in clone.path])
        share = self.early_share(clone.step)
        return (1 - share * len(between)) * query_loss + share * between.sum()

    def early_share(self, steps: int) -> float:
        """Weight of each query loss but the last: from ``1 / steps`` linearly to 0 at ``multi_step_until``."""
        return max(0.0, 1 - int(self.meta_steps) / self.multi_step_until) / steps

    def advance(self) -> None:
        """One meta-step has been taken."""
        self.meta_steps += 1
