"""What training costs: multiply-adds counted from the ticket, and measured seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from ..meta.config import TrainConfig
from ..ticket import Ticket

PASSES = 3  # forward, input gradient, weight gradient
TANGENT_PASSES = 6  # of a Hessian-vector product: the tangents of those three, each in both of its factors


@dataclass(frozen=True)
class Cost:
    """FLOPs of convolutions and linear layers (a multiply-add is 2), and seconds. Costs add up with `+`."""

    flops: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.seconds + other.seconds)


def sample_flops(model: nn.Module, ticket: Ticket | None, input_size: Sequence[int]) -> float:
    """FLOPs of one sample's forward pass through a dense `model` with this ticket; None is the dense model."""
    return 2.0 * sum((ticket or Ticket({})).flops(model, input_size).kept.values())


def supervised_passes(batch: int) -> int:
    """Forward passes of one sample that a training step amounts to."""
    return PASSES * batch


def meta_passes(config: TrainConfig) -> int:
    """Forward passes of one sample that a meta-step amounts to.

    A support image of second order costs 3 passes and 6 more for its share of the meta-gradient in every inner step; a
    query image 3.
    """
    inner = PASSES if config.first_order else PASSES + TANGENT_PASSES
    support = config.ways * config.shots * config.inner_steps * inner
    return config.meta_batch * (support + config.ways * config.queries * PASSES)
