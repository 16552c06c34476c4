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
from sparsemeta.meta.config import ENGINES

from ..case import Candidate, relative_error
from .choices import check_choices, check_names, drawn_ticket, tuned
from .conv_candidates import LAYOUTS
from .meta_compiled import compiled
from .meta_shapes import MetaShape
from .structures import block_of

ORDERS = ("first", "second")
PEERS = ("compiled",)
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
    structure: str = "unstructured"
    engine: str = "auto"
    peers: tuple[str, ...] = ()
    tolerance: float = TOLERANCE

    @property
    def labels(self) -> dict[str, Any]:
        """Columns of the report."""
        return {
            "meta-step": str(self.shape),
            "pattern": self.structure,
            "order": self.order,
            "engine": self.engine,
            "tasks": self.tasks,
            "threads": self.threads,
            "sparsity": self.sparsity,
        }

    @property
    def ideal(self) -> float:
        """Multiply-adds of convolutions and head, dense over sparse. Fusing the rest of the step can gain more."""
        size = self.shape.channels, self.shape.size, self.shape.size
        return self.ticket().flops(self.shape.model(), size).ratio

    def candidates(self) -> list[Candidate]:
        """The dense model in both layouts, and compiled if asked for; the sparse one with each backend."""
        found = [self._dense(layout) for layout in LAYOUTS]
        if "compiled" in self.peers:
            run = compiled(self.shape.model(), self.shape.tasks(self.tasks), self.shape.config(self.order))
            found.append(Candidate("compiled", "dense", run, self._error(None)))
        return found + [self._sparse(backend) for backend in self.backends]

    def ticket(self) -> sm.Ticket:
        """The same in every run."""
        return drawn_ticket(self.shape.model(), self.sparsity, self.structure)

    def sparse_run(self, backend: str) -> Callable[[], list[Tensor]]:
        """The meta-step of the sparse model."""
        model = sm.sparsify(self.shape.model(), self.ticket(), backend)
        return runner(model, self.shape.tasks(self.tasks), self.shape.config(self.order, engine=self.engine))

    def dense_run(self, layout: str) -> Callable[[], list[Tensor]]:
        """The meta-step of the dense model."""
        config = self.shape.config(self.order, layout, "autograd")
        return runner(self.shape.model(), self.shape.tasks(self.tasks), config)

    def _dense(self, layout: str) -> Candidate:
        return Candidate(layout, "dense", self.dense_run(layout), self._error(None))

    def _sparse(self, backend: str) -> Candidate:
        return Candidate(backend, "sparse", tuned(self.sparse_run, backend), self._error(self.sparsity))

    def _error(self, sparsity: float | None) -> Callable[[list[Tensor]], float]:
        exact = partial(exact_gradient, self.shape, self.order, self.tasks, sparsity, self.structure)
        return lambda got: relative_error(got, exact())


def runner(model: nn.Module, tasks: Tasks, config: TrainConfig) -> Callable[[], list[Tensor]]:
    """The meta-step of a training run; it returns the meta-gradient in one vector."""
    learner = make_learner(model, config)
    optimizer = make_optimizer(learner, config)

    def run() -> list[Tensor]:
        meta_step(learner, tasks, optimizer, config)
        return [torch.cat([p.grad.flatten() for p in learner.parameters()])]

    return run


@cache  # of seconds each, and asked for again by every layout, backend and number of threads
def exact_gradient(
    shape: MetaShape, order: str, tasks: int, sparsity: float | None, structure: str = "unstructured"
) -> list[Tensor]:
    """Meta-gradient in float64 by the definition: PyTorch on the expanded weights, or on the dense model (None)."""
    model, drawn = shape.model().double(), shape.tasks(tasks)
    if sparsity is not None:
        model = sm.sparsify(model, drawn_ticket(shape.model(), sparsity, structure), "dense")
    return runner(model, drawn, shape.config(order, engine="autograd"))()


def cases(
    shapes: Sequence[MetaShape],
    orders: Sequence[str] = ORDERS,
    sparsities: Sequence[float] = (0.8, 0.9, 0.95),
    threads: Sequence[int] = (1,),
    backends: Sequence[str] = ("cpu",),
    tasks: Sequence[int] = (1,),
    structures: Sequence[str] = ("unstructured",),
    engine: str = "auto",
    peers: Sequence[str] = (),
) -> list[MetaStepCase]:
    """Every combination. Raises `ValueError` for an unknown name, a number out of range, a backend that is not here."""
    check_choices(sparsities, threads, backends)
    check_names("order", orders, ORDERS)
    check_names("engine", [engine], ENGINES)
    check_names("peer", peers, PEERS)
    for structure in structures:
        block_of(structure, (1, 1, 1, 1))
    if wrong := [n for n in tasks if n < 1]:
        raise ValueError(f"expected at least one task, got {wrong}")
    return [
        MetaStepCase(shape, order, sparsity, thread, tuple(backends), count, structure, engine, tuple(peers))
        for shape, structure, order, count, sparsity, thread in itertools.product(
            shapes, structures, orders, tasks, sparsities, threads  # last, so that little changes between them
        )
    ]
