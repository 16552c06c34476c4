"""The inner update of all layers and tasks in one launch on a GPU, against PyTorch's `torch._foreach_add`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

import sparsemeta as sm
from sparsemeta.backends import cuda

from ..case import Candidate, relative_error
from .choices import drawn_ticket
from .gpu_conv import CALLS, _Captured, _repeated
from .meta_shapes import SHAPES

RATE = 0.01


@dataclass(frozen=True)
class GpuUpdateCase:
    """The parameters of a sparse Conv-4, one row for each task."""

    tasks: int
    sparsity: float
    device: str = "cuda"
    ideal: float = 1.0  # the same elements either way
    tolerance: float = 1e-6

    @property
    def labels(self) -> dict[str, Any]:
        """Columns of the report."""
        return {"inner update": "Conv-4", "tasks": self.tasks, "threads": 1, "sparsity": self.sparsity, "calls": CALLS}

    def candidates(self) -> list[Candidate]:
        """Both eager and captured in a CUDA graph."""
        params, grads = self._operands()
        exact = [p.double() - RATE * g.double() for p, g in zip(params, grads, strict=True)]
        params, grads = ([t.to(self.device) for t in tensors] for tensors in (params, grads))
        ways: dict[str, Callable[[], Sequence[Tensor]]] = {
            "dense": partial(torch._foreach_add, params, grads, alpha=-RATE),
            "sparse": partial(cuda.inner_update, params, grads, [RATE] * len(params)),
        }
        names = {"dense": "foreach", "sparse": "cuda"}
        runs = [(names[role], role, run) for role, run in ways.items()]
        if self.device == "cuda":
            runs += [(f"{names[role]} graphed", role, _Captured(lambda run=run: run)) for role, run in ways.items()]
        return [Candidate(name, role, _repeated(run, self.device), partial(_error, exact)) for name, role, run in runs]

    def _operands(self) -> tuple[list[Tensor], list[Tensor]]:
        model = SHAPES["84"].model()
        sparse = sm.sparsify(model, drawn_ticket(model, self.sparsity, "unstructured"))
        normal = partial(torch.randn, generator=torch.Generator().manual_seed(0))
        shapes = [(self.tasks, *p.shape) for p in sparse.parameters()]
        return [normal(shape) for shape in shapes], [normal(shape) for shape in shapes]


def _error(exact: list[Tensor], results: Sequence[Tensor]) -> float:
    return relative_error([t.cpu() for t in results], exact)


def cases(tasks: Sequence[int], sparsities: Sequence[float], device: str) -> list[GpuUpdateCase]:
    """Every combination."""
    return [GpuUpdateCase(count, sparsity, device) for count in tasks for sparsity in sparsities]
