"""What training costs: multiply-adds counted from the ticket, and measured seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from torch import nn

from ..meta.config import TrainConfig
from ..ticket import Ticket

PASSES = 3  # forward, input gradient, weight gradient
TANGENT_PASSES = 6  # of a Hessian-vector product: the tangents of those three, each in both of its factors


@dataclass(frozen=True)
class Cost:
    """FLOPs of convolutions and linear layers (a multiply-add is 2), and seconds. Costs add up with `+`.

    Attributes:
        flops: counted.
        seconds: by the clock on the wall.
        processor_seconds: of all threads of this process, whatever else the machine does; what a GPU does is not in.
    """

    flops: float = 0.0
    seconds: float = 0.0
    processor_seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Cost:
        """What a record of a search says of it."""
        return cls(*(record[f.name] for f in fields(cls)))


def stopwatch() -> Callable[[], Cost]:
    """A clock that starts now: each call gives the seconds until then."""
    wall, processor = time.perf_counter(), time.process_time()
    return lambda: Cost(0.0, time.perf_counter() - wall, time.process_time() - processor)


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
