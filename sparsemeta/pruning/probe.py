"""What a score may look at: batches of inputs, and the loss on each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..data.tasks import Tasks
from ..meta.config import TrainConfig
from ..meta.meta_step import adapted, make_learner, placed

Loss = Callable[[nn.Module], Tensor]


@dataclass(frozen=True)
class Probe:
    """Data for the scores that need some.

    Attributes:
        inputs: one tensor `[N, ...]` for each batch, that the model takes.
        losses: for each batch a function from a model to its loss, a scalar with a graph.

    Raises:
        ValueError: no batch, or not one loss for each.
    """

    inputs: Sequence[Tensor]
    losses: Sequence[Loss]

    def __post_init__(self) -> None:
        if not self.inputs or len(self.inputs) != len(self.losses):
            raise ValueError(
                f"expected at least one batch and one loss for each, got {len(self.inputs)} and {len(self.losses)}; "
                f"use Probe.supervised or Probe.meta"
            )

    @classmethod
    def supervised(
        cls, batches: Sequence[tuple[Tensor, Tensor]], loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    ) -> Probe:
        """Probe of labelled batches: `(inputs [N, ...], labels [N])` each; `loss(outputs, labels)` is a scalar."""

        def on(x: Tensor, y: Tensor) -> Loss:
            return lambda model: loss(model(x), y)

        return cls([x for x, _ in batches], [on(x, y) for x, y in batches])

    @classmethod
    def meta(cls, tasks: Any, config: TrainConfig) -> Probe:
        """Probe of few-shot tasks: a batch is a support set, its loss the query loss after adaptation.

        Args:
            tasks: as `sampler.sample(n)` gives them.
            config: of the inner loop; `first_order` counts here too.
        """

        def on(index: int) -> Loss:
            def loss(model: nn.Module) -> Tensor:
                learner = make_learner(model, config)
                task = [field[index : index + 1] for field in fields]
                support_x, support_y, query_x, query_y = next(placed(Tasks(*task), learner, config))
                clone = adapted(learner, support_x, support_y, config.inner_steps)
                return F.cross_entropy(clone(query_x), query_y)

            return loss

        fields = tasks.support_x, tasks.support_y, tasks.query_x, tasks.query_y
        return cls(list(tasks.support_x), [on(index) for index in range(len(tasks.support_x))])
