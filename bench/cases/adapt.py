"""Adaptation to new tasks, as `sm.meta.evaluate` does it: the inner loop on the support set, then the query loss."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from torch import Tensor, nn

import sparsemeta as sm
from sparsemeta.data.tasks import Tasks
from sparsemeta.meta import TrainConfig, make_learner
from sparsemeta.meta.config import ENGINES
from sparsemeta.meta.evaluate import judgements

from ..case import Candidate, relative_error
from .choices import check_choices, check_names, drawn_ticket, tuned
from .conv_candidates import LAYOUTS
from .meta_shapes import MetaShape
from .structures import block_of

# Of the largest loss, after inner steps in float32 and in float64.
TOLERANCE = 1e-2


@dataclass(frozen=True)
class AdaptCase:
    """`tasks` tasks one after the other, each from the same start."""

    shape: MetaShape
    structure: str
    sparsity: float
    tasks: int
    threads: int
    backends: tuple[str, ...]
    engine: str = "auto"
    tolerance: float = TOLERANCE

    @property
    def labels(self) -> dict[str, Any]:
        """Columns of the report; times are told for each task too."""
        return {
            "adapt": str(self.shape),
            "pattern": self.structure,
            "engine": self.engine,
            "tasks": self.tasks,
            "threads": self.threads,
            "sparsity": self.sparsity,
        }

    @property
    def ideal(self) -> float:
        """Multiply-adds of convolutions and head, dense over sparse."""
        size = self.shape.channels, self.shape.size, self.shape.size
        return self._ticket().flops(self.shape.model(), size).ratio

    def candidates(self) -> list[Candidate]:
        """The dense model in both layouts, the sparse one with each backend."""
        found = []
        for layout in LAYOUTS:
            run = losses(self.shape.model(), self._tasks(), self.shape.config("first", layout, "autograd"))
            found.append(Candidate(layout, "dense", run, self._error(None)))
        for backend in self.backends:
            found.append(Candidate(backend, "sparse", tuned(self._sparse_run, backend), self._error(self.sparsity)))
        return found

    def _sparse_run(self, backend: str) -> Callable[[], list[Tensor]]:
        model = sm.sparsify(self.shape.model(), self._ticket(), backend)
        return losses(model, self._tasks(), self.shape.config("first", engine=self.engine))

    def _error(self, sparsity: float | None) -> Callable[[list[Tensor]], float]:
        exact = partial(_exact, self.shape, self.structure, sparsity, self.tasks)
        return lambda got: relative_error(got, exact())

    def _ticket(self) -> sm.Ticket:
        return drawn_ticket(self.shape.model(), self.sparsity, self.structure)

    def _tasks(self) -> Tasks:
        return self.shape.tasks(self.tasks)


def losses(model: nn.Module, tasks: Tasks, config: TrainConfig) -> Callable[[], list[Tensor]]:
    """Query loss of each task after `config.inner_steps` steps on its support set."""
    learner = make_learner(model, config)

    def run() -> list[Tensor]:
        return [judgements(learner, tasks, config, config.inner_steps)[:, 0]]

    return run


@cache  # asked for again by every layout, backend and number of threads
def _exact(shape: MetaShape, structure: str, sparsity: float | None, tasks: int) -> list[Tensor]:
    """In float64 by PyTorch, on the expanded weights or on the dense model (None)."""
    model = shape.model().double()
    if sparsity is not None:
        model = sm.sparsify(model, drawn_ticket(shape.model(), sparsity, structure), "dense")
    return losses(model, shape.tasks(tasks), shape.config("first", engine="autograd"))()


def cases(
    shapes: Sequence[MetaShape],
    structures: Sequence[str] = ("unstructured",),
    sparsities: Sequence[float] = (0.8, 0.9, 0.95),
    tasks: Sequence[int] = (1, 32),
    threads: Sequence[int] = (1,),
    backends: Sequence[str] = ("cpu",),
    engine: str = "auto",
) -> list[AdaptCase]:
    """Every combination. Raises `ValueError` for a number out of range, or a backend that is not here."""
    check_choices(sparsities, threads, backends)
    check_names("engine", [engine], ENGINES)
    for structure in structures:
        block_of(structure, (1, 1, 1, 1))
    if wrong := [n for n in tasks if n < 1]:
        raise ValueError(f"expected at least one task, got {wrong}")
    return [
        AdaptCase(shape, structure, sparsity, count, thread, tuple(backends), engine)
        for shape, structure, count, sparsity, thread in itertools.product(
            shapes, structures, tasks, sparsities, threads  # last, so that little changes between them
        )
    ]
