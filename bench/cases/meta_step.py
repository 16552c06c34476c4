"""One whole meta-step of MAML, dense and sparse: the same `sm.meta.meta_step` on the same tasks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

import sparsemeta as sm
from sparsemeta.data.tasks import Tasks
from sparsemeta.meta import TrainConfig, make_learner, make_optimizer, meta_step

from ..case import Candidate, relative_error
from .choices import check_choices, check_names
from .meta_shapes import SHAPES, MetaShape

ORDERS = ("first", "second")
# Of the largest entry of the meta-gradient. Over five inner steps some ReLU and max-pooling decide another way in
# float32: dense PyTorch comes to 3e-2 itself, here as there. A meta-gradient without its second order is off by 2e-1.
TOLERANCE = 1e-1


@dataclass(frozen=True)
class MetaStepCase:
    """One shape, order of the meta-gradient and sparsity, the same in every layer."""

    shape: MetaShape
    order: str
    sparsity: float
    threads: int
    backends: tuple[str, ...]
    tasks: int = 1
    tolerance: float = TOLERANCE

    @property
    def labels(self) -> dict[str, Any]:
        """Columns of the report."""
        return {
            "meta-step": str(self.shape),
            "order": self.order,
            "tasks": self.tasks,
            "threads": self.threads,
            "sparsity": self.sparsity,
        }

    @property
    def ideal(self) -> float:
        """Multiply-adds of convolutions and head, dense over sparse. Fusing the rest of the step can gain more."""
        size = self.shape.channels, self.shape.size, self.shape.size
        return ticket(self.shape, self.sparsity).flops(self.shape.model(), size).ratio

    def candidates(self) -> list[Candidate]:
        """The dense model in both layouts, the sparse one with each backend."""
        found = [self._dense(layout) for layout in ("contiguous", "channels_last")]
        return found + [self._sparse(backend) for backend in self.backends]

    def _dense(self, layout: str) -> Candidate:
        run = runner(self.shape.model(), self.shape.tasks(self.tasks), self.shape.config(self.order, layout))
        exact = partial(exact_gradient, self.shape, self.order, self.tasks, None)
        return Candidate(layout, "dense", run, lambda got: relative_error(got, exact()))

    def _sparse(self, backend: str) -> Candidate:
        model = sm.sparsify(self.shape.model(), ticket(self.shape, self.sparsity), backend)
        run = runner(model, self.shape.tasks(self.tasks), self.shape.config(self.order))
        exact = partial(exact_gradient, self.shape, self.order, self.tasks, self.sparsity)
        return Candidate(backend, "sparse", run, lambda got: relative_error(got, exact()))


def ticket(shape: MetaShape, sparsity: float) -> sm.Ticket:
    """By magnitude in each layer; of fresh weights, so a random one."""
    return sm.Ticket.magnitude(shape.model(), sparsity, scope="layer")


def runner(model: nn.Module, tasks: Tasks, config: TrainConfig) -> Callable[[], list[Tensor]]:
    """The meta-step of a training run; it returns the meta-gradient in one vector."""
    learner = make_learner(model, config)
    optimizer = make_optimizer(learner, config)

    def run() -> list[Tensor]:
        meta_step(learner, tasks, optimizer, config)
        return [torch.cat([p.grad.flatten() for p in learner.parameters()])]

    return run


@cache  # of seconds each, and asked for again by every layout, backend and number of threads
def exact_gradient(shape: MetaShape, order: str, tasks: int, sparsity: float | None) -> list[Tensor]:
    """Meta-gradient in float64 by the definition: PyTorch on the expanded weights, or on the dense model (None)."""
    model, drawn = shape.model().double(), shape.tasks(tasks)
    if sparsity is not None:
        model = sm.sparsify(model, ticket(shape, sparsity), "dense")
    return runner(model, drawn, shape.config(order))()


def cases(
    shapes: Sequence[str],
    orders: Sequence[str] = ORDERS,
    sparsities: Sequence[float] = (0.8, 0.9, 0.95),
    threads: Sequence[int] = (1,),
    backends: Sequence[str] = ("cpu",),
    tasks: int = 1,
) -> list[MetaStepCase]:
    """Every combination. Raises `ValueError` for an unknown name, a number out of range, a backend that is not here."""
    check_choices(sparsities, threads, backends)
    check_names("shape", shapes, SHAPES)
    check_names("order", orders, ORDERS)
    if tasks < 1:
        raise ValueError(f"expected at least one task, got {tasks}")
    return [
        MetaStepCase(SHAPES[shape], order, sparsity, count, tuple(backends), tasks)
        for count, shape, order, sparsity in itertools.product(threads, shapes, orders, sparsities)
    ]
