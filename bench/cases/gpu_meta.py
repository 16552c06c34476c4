"""A meta-step of many tasks on a GPU through `sm.meta`: eager and captured, one task after another and all at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import grad, vmap

import sparsemeta as sm
from sparsemeta.meta import MAML, TrainConfig, adapt_tasks, forward_tasks

from ..case import Candidate, relative_error
from .choices import drawn_ticket
from .conv_candidates import LAYOUTS
from .gpu_conv import _Captured, _set_precision
from .meta_compiled import _meta_loss
from .meta_shapes import MetaShape
from .meta_step import ORDERS, TOLERANCE, runner


@dataclass(frozen=True)
class GpuMetaCase:
    """Conv-4, its convolutions in TF32, and a ticket: in blocks by backend `"triton"`, unstructured by `"cuda"`.

    `compile_dense` takes a minute or more for each inner step.
    """

    shape: MetaShape
    order: str
    structure: str
    sparsity: float
    tasks: int
    device: str = "cuda"
    compile_dense: bool = False
    tolerance: float = TOLERANCE

    @property
    def labels(self) -> dict[str, Any]:
        """Columns of the report."""
        told = {"meta-step": str(self.shape), "pattern": self.structure, "order": self.order}
        return {**told, "tasks": self.tasks, "threads": 1, "sparsity": self.sparsity}

    @property
    def ideal(self) -> float:
        """Multiply-adds of convolutions and head, dense over sparse."""
        return self._ticket().flops(self.shape.model(), (self.shape.channels, self.shape.size, self.shape.size)).ratio

    @property
    def backend(self) -> str:
        """Of the sparse model; on a CPU Triton's interpreter would take minutes."""
        if self.structure == "unstructured":
            return "cuda"
        return "triton" if self.device == "cuda" else "dense"

    def candidates(self) -> list[Candidate]:
        """Dense and sparse in the same ways; dense also in both layouts, and compiled."""
        _set_precision("tf32")
        sparse = sm.sparsify(self.shape.model(), self._ticket(), self.backend)
        layout = "contiguous" if self.backend == "cuda" else "channels_last"  # what its kernels are made for
        return [*self._of("dense", self.shape.model(), list(LAYOUTS)), *self._of("sparse", sparse, [layout])]

    def _of(self, role: str, model: nn.Module, layouts: Sequence[str]) -> Iterator[Candidate]:
        """Captured with the last of the layouts."""
        model, tasks = model.to(self.device), self.shape.tasks(self.tasks).to(self.device)
        config = replace(self.shape.config(self.order, engine="autograd"), graph="off")
        exact = self._exact(role)
        ways: dict[str, Callable[[], list[Tensor]]] = {}
        for layout in layouts:
            ways[f"{role} {layout}"] = runner(model, tasks, replace(config, memory_format=layout))
        ways[f"{role} all tasks"] = at_once(model, tasks, config)
        if self.device == "cuda":
            graphed = replace(config, memory_format=layouts[-1], graph="on")
            ways[f"{role} graphed"] = runner(model, tasks, graphed)
            ways[f"{role} all tasks graphed"] = _Captured(partial(at_once, model, tasks, config))
            if self.compile_dense and role == "dense":
                ways["dense all tasks compiled graphed"] = _Captured(partial(compiled_at_once, model, tasks, config))
        if self.device == "cuda" and role == "sparse":  # whether batch norm, activation and pooling are fused
            for images in (tasks.support_x[0], tasks.query_x[0]):
                sm.backends.tune(lambda images=images: model(images).sum().backward())
        for name, run in ways.items():
            yield Candidate(name, role, _waited(run, self.device), lambda got: relative_error([got[0].cpu()], exact))

    def _exact(self, role: str) -> list[Tensor]:
        """Of the definition in float64, computed where the rest is: on a CPU it would take minutes."""
        model = self.shape.model()
        model = sm.sparsify(model, self._ticket(), "dense") if role == "sparse" else model
        config = replace(self.shape.config(self.order, engine="autograd"), graph="off")
        run = runner(model.double().to(self.device), self.shape.tasks(self.tasks).to(self.device), config)
        return [run()[0].cpu()]

    def _ticket(self) -> sm.Ticket:
        return drawn_ticket(self.shape.model(), self.sparsity, self.structure)


def at_once(model: nn.Module, tasks: Any, config: TrainConfig) -> Callable[[], list[Tensor]]:
    """The meta-gradient of all tasks in one vector, a task axis in every layer."""
    learner = MAML(model, config.inner_lr, first_order=config.first_order)

    def run() -> list[Tensor]:
        weights = adapt_tasks(learner, tasks.support_x, tasks.support_y, config.inner_steps)
        logits = forward_tasks(learner, weights, tasks.query_x, config.inner_steps)
        loss = F.cross_entropy(logits.flatten(0, 1), tasks.query_y.flatten())
        return [torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])]

    return run


def compiled_at_once(model: nn.Module, tasks: Any, config: TrainConfig) -> Callable[[], list[Tensor]]:
    """The same of a dense model in one compiled graph."""
    gradient = torch.compile(vmap(grad(_meta_loss(model, config)), (None, 0, 0, 0, 0)), dynamic=False)
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    drawn = tasks.support_x, tasks.support_y, tasks.query_x, tasks.query_y
    return lambda: [torch.cat([found.mean(0).flatten() for found in gradient(weights, *drawn).values()])]


def _waited(run: Callable[[], list[Tensor]], device: str) -> Callable[[], list[Tensor]]:
    def waited() -> list[Tensor]:
        results = run()
        if device == "cuda":
            torch.cuda.synchronize()
        return results

    return waited


def cases(
    shapes: Sequence[MetaShape], structures: Sequence[str], sparsities: Sequence[float], tasks: int, device: str,
    orders: Sequence[str] = ORDERS, compile_dense: bool = False,
) -> list[GpuMetaCase]:  # fmt: skip
    """Every combination."""
    made = itertools.product(shapes, orders, structures, sparsities)
    return [GpuMetaCase(*which, tasks, device, compile_dense) for which in made]
