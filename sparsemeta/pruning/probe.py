"""What a score may look at: batches of inputs, and the loss on each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..data.tasks import Tasks
from ..meta.config import TrainConfig
from ..meta.meta_step import adapted, make_learner, placed

Network = Callable[[Tensor], Tensor]
Loss = Callable[[Network], Tensor]
Adaptation = Callable[[nn.Module], Network]


@dataclass(frozen=True)
class Probe:
    """Data for the scores that need some.

    Attributes:
        inputs: one tensor `[N, ...]` for each batch, that the model takes.
        objectives: for each batch a function from a network as it is to its loss, a scalar with a graph.
        adaptations: for each batch a function from a model to the network adapted to the batch, which takes inputs and
            runs the model's own layers; empty where nothing adapts.

    Raises:
        ValueError: no batch, or not one loss for each.
    """

    inputs: Sequence[Tensor]
    objectives: Sequence[Loss]
    adaptations: Sequence[Adaptation] = ()

    def __post_init__(self) -> None:
        if not self.inputs or len(self.inputs) != len(self.objectives):
            raise ValueError(
                f"expected at least one batch and one objective for each, got {len(self.inputs)} and "
                f"{len(self.objectives)}; use Probe.supervised or Probe.meta"
            )

    def network(self, index: int, model: nn.Module, adapted: bool = True) -> Network:
        """`model` adapted to a batch; as it is where nothing adapts, or without `adapted`."""
        return self.adaptations[index](model) if adapted and self.adaptations else model

    @property
    def losses(self) -> list[Loss]:
        """For each batch a function from a model to its loss after adaptation."""
        return [partial(self._loss, index) for index in range(len(self.inputs))]

    def _loss(self, index: int, model: nn.Module) -> Tensor:
        return self.objectives[index](self.network(index, model))

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
        """Probe of few-shot tasks: a batch is a support set, its objective the loss on the query set.

        Args:
            tasks: as `sampler.sample(n)` gives them.
            config: of the inner loop; `first_order` counts here too.
        """

        def task(index: int, network: nn.Module) -> tuple[Tensor, ...]:
            return next(placed(Tasks(*(field[index : index + 1] for field in fields)), network, config))

        def adapt(index: int, model: nn.Module) -> nn.Module:
            learner = make_learner(model, config)
            return adapted(learner, *task(index, learner)[:2], config.inner_steps)

        def objective(index: int, network: nn.Module) -> Tensor:
            query_x, query_y = task(index, network)[2:]
            return F.cross_entropy(network(query_x), query_y)

        fields = tasks.support_x, tasks.support_y, tasks.query_x, tasks.query_y
        each = range(len(tasks.support_x))
        return cls(list(tasks.support_x), [partial(objective, i) for i in each], [partial(adapt, i) for i in each])
