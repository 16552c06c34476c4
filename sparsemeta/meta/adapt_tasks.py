"""Many tasks adapted at once: weights with a leading task axis, one kernel for each layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import vmap

from . import graphs
from .maml import MAML


def adapt_tasks(
    model: nn.Module,
    support_x: Tensor,
    support_y: Tensor,
    steps: int = 1,
    lr: Any = None,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    graph: str = "auto",
    **options: Any,
) -> dict[str, Tensor]:
    """The adapted weights of T tasks, each as ``clone.adapt`` would have them, computed side by side.

    They differentiate back to the parameters, as those of a clone do, except under ``torch.no_grad()``, where a GPU
    captures the work in a CUDA graph. Memory grows with the tasks.

    Args:
        model: a learner; or a model, which is adapted as by ``MAML(model, lr, **options)``.
        support_x: ``[T, N, ...]``.
        support_y: ``[T, N]``, or whatever targets ``loss`` takes, with T first.
        steps: inner steps.
        lr, options: as for ``MAML``; a learner has its own.
        loss: of the outputs and targets of one task, a scalar.
        graph: ``"auto"`` captures what comes again, ``"on"`` at once, ``"off"`` nothing.

    Returns:
        ``{name: [T, ...]}``, for ``forward_tasks``: values ``[T, nnz]`` of sparse layers.

    Raises:
        ValueError: supports without a task axis or of different T; ``lr`` or options for a learner, or no ``lr`` for a
            model; ``graph="on"`` for what cannot be captured; what ``MAML`` raises.
    """
    learner = tasks_learner(model, lr, options)
    if support_x.dim() < 2 or support_x.shape[0] != support_y.shape[0]:
        raise ValueError(
            f"expected support_x [T, N, ...] and support_y [T, N] of the same T; got {tuple(support_x.shape)} and "
            f"{tuple(support_y.shape)}. Stack the tasks along a new first axis"
        )

    def run(x: Tensor, y: Tensor) -> list[Tensor]:
        with torch.enable_grad():
            clone = learner.clone(tasks=len(x))
            for _ in range(steps):
                clone.adapt(lambda clone: vmap(loss)(clone(x), y).sum())
        return list(clone.weights.values())

    differentiable = ["its results shall differentiate: call it under torch.no_grad()"] * torch.is_grad_enabled()
    facts = "adapt_tasks", steps, loss
    weights = graphs.run(learner, graph, facts, run, (support_x, support_y), reasons=differentiable)
    if not differentiable:
        weights = [w.detach().clone() for w in weights]  # those of a replay are overwritten by the next
    return dict(zip(learner.start(), weights, strict=True))


def forward_tasks(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    x: Tensor,
    steps: int = 0,
    support_x: Tensor | None = None,
    **options: Any,
) -> Any:
    """``model`` on a batch of each task, with the weights that ``adapt_tasks`` found for it.

    Args:
        model, options: as for ``adapt_tasks``.
        weights: ``{name: [T, ...]}``.
        x: ``[T, N, ...]``.
        steps: inner steps that were taken; only ``bn_mode="per_step"`` asks.
        support_x: the support sets ``[T, N', ...]``; only ``bn_mode="inductive"`` asks.

    Returns:
        What the model gives, with T first: ``[T, N, ways]``.

    Raises:
        ValueError: no ``support_x`` in ``bn_mode="inductive"``, weights of other names, another T.
    """
    clone = tasks_learner(model, None if isinstance(model, MAML) else 0.0, options).clone(tasks=len(x))
    if weights.keys() != clone.weights.keys() or any(len(w) != len(x) for w in weights.values()):
        raise ValueError(
            f"expected weights {sorted(clone.weights)} of {len(x)} tasks, as x has; got "
            f"{ {name: tuple(w.shape) for name, w in weights.items()} }. Take them from adapt_tasks with the same model"
        )
    if clone.bn_mode == "inductive" and support_x is None:
        raise ValueError('expected support_x with bn_mode="inductive"; got None. Give the support sets [T, N, ...]')
    clone.weights, clone.step, clone._support = dict(weights), steps, support_x
    return clone(x)


def tasks_learner(model: nn.Module, lr: Any, options: Mapping[str, Any]) -> MAML:
    """``model`` if it is a learner, else ``MAML`` of it."""
    if not isinstance(model, MAML):
        if lr is None:
            raise ValueError("expected lr for a model; got None. Give the inner rate, or a learner, which has its own")
        return MAML(model, lr, **options)
    if lr is not None or options:
        raise ValueError(f"expected a learner alone, which has its own lr and options; got {lr!r} and {options}")
    return model
