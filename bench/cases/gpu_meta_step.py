"""The meta-gradient of many tasks on a GPU: one after the other, or all at once by `vmap`, captured in a CUDA graph."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

import sparsemeta as sm

from ..case import Candidate, relative_error
from .choices import drawn_ticket
from .gpu_conv import _Captured
from .meta_compiled import _meta_loss
from .meta_shapes import MetaShape
from .meta_step import ORDERS, TOLERANCE, exact_gradient


@dataclass(frozen=True)
class GpuMetaCase:
    """Conv-4 and its unstructured ticket, with backend `"cuda"`, in one order of the meta-gradient."""

    shape: MetaShape
    order: str
    sparsity: float
    tasks: int
    device: str = "cuda"
    tolerance: float = TOLERANCE

    @property
    def labels(self) -> dict[str, Any]:
        """Columns of the report."""
        told = {"meta-step": str(self.shape), "pattern": "unstructured", "order": self.order}
        return {**told, "tasks": self.tasks, "threads": 1, "sparsity": self.sparsity}

    @property
    def ideal(self) -> float:
        """Multiply-adds of convolutions and head, dense over sparse."""
        size = self.shape.channels, self.shape.size, self.shape.size
        return self._ticket().flops(self.shape.model(), size).ratio

    def candidates(self) -> list[Candidate]:
        """The dense model and the sparse one in every way; only the dense one can be compiled."""
        dense, sparse = self.shape.model(), sm.sparsify(self.shape.model(), self._ticket(), "cuda")
        return [*self._of("dense", dense, None), *self._of("sparse", sparse, self.sparsity)]

    def _of(self, role: str, model: nn.Module, sparsity: float | None) -> Iterator[Candidate]:
        exact = partial(exact_gradient, self.shape, self.order, self.tasks, sparsity)
        for name, run in self._ways(role, model.to(self.device)).items():
            yield Candidate(name, role, _waited(run, self.device), lambda got: relative_error([got[0].cpu()], exact()))

    def _ways(self, role: str, model: nn.Module) -> dict[str, Callable[[], list[Tensor]]]:
        gradient = grad(_meta_loss(model, self.shape.config(self.order)))
        tasks = self.shape.tasks(self.tasks).to(self.device)
        drawn = tasks.support_x, tasks.support_y, tasks.query_x, tasks.query_y
        weights = {name: weight.detach() for name, weight in model.named_parameters()}
        at_once = vmap(gradient, (None, 0, 0, 0, 0))

        def one_by_one() -> list[Tensor]:
            each = [gradient(weights, *task) for task in zip(*drawn, strict=True)]
            return [torch.cat([sum(found[name] for found in each).flatten() / len(each) for name in weights])]

        def mean_of(function: Callable) -> Callable[[], list[Tensor]]:
            return lambda: [torch.cat([found.mean(0).flatten() for found in function(weights, *drawn).values()])]

        ways = {role: one_by_one, f"{role} all tasks": mean_of(at_once)}
        if self.device == "cuda":
            ways[f"{role} all tasks graphed"] = _Captured(lambda: mean_of(at_once))
            if role == "dense":
                compiled = mean_of(torch.compile(at_once, dynamic=False))
                ways["dense all tasks compiled graphed"] = _Captured(lambda: compiled)
        return ways

    def _ticket(self) -> sm.Ticket:
        return drawn_ticket(self.shape.model(), self.sparsity, "unstructured")


def _waited(run: Callable[[], list[Tensor]], device: str) -> Callable[[], list[Tensor]]:
    def waited() -> list[Tensor]:
        results = run()
        if device == "cuda":
            torch.cuda.synchronize()
        return results

    return waited


def cases(shapes: Sequence[MetaShape], sparsities: Sequence[float], tasks: int, device: str) -> list[GpuMetaCase]:
    """Every combination, both orders."""
    made = itertools.product(shapes, ORDERS, sparsities)
    return [GpuMetaCase(shape, order, sparsity, tasks, device) for shape, order, sparsity in made]
