"""One meta-step: adapt to each task of a batch, and move the parameters by the meta-gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.tasks import Tasks
from . import graphs
from .algorithms import as_learner
from .chain import choose
from .config import TrainConfig
from .maml import MAML
from .optimizers import outer_optimizer


class DivergenceError(RuntimeError):
    """The loss or its gradient is no longer a finite number."""


def make_learner(model: nn.Module, config: TrainConfig) -> MAML:
    """The learner that ``config`` describes (``as_learner``); the weights of ``model`` take its memory format."""
    model.to(memory_format=config.torch_memory_format)
    return as_learner(model, config)


def make_optimizer(learner: MAML, config: TrainConfig) -> torch.optim.Optimizer:
    """The outer optimiser that ``config`` names, over the parameters that require a gradient.

    Raises:
        ValueError: no parameter does.
    """
    parameters = [p for p in learner.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("expected a model with trainable parameters; got none. Call requires_grad_(True) on some")
    return outer_optimizer(parameters, config)


def meta_step(
    learner: MAML, tasks: Any, optimizer: torch.optim.Optimizer, config: TrainConfig, reduce: Callable | None = None
) -> tuple[float, float]:
    """One meta-step: the mean objective over the tasks, in MAML the query loss, goes one step of ``optimizer`` down.

    The graph of one task is freed before the next task begins, so memory does not grow with the tasks.

    Args:
        learner: see ``make_learner``.
        tasks: T tasks: ``support_x`` ``[T, ways * shots, C, H, W]``, ``support_y``, ``query_x``, ``query_y``.
        optimizer: over the learner's parameters, see ``make_optimizer``.
        config: gives ``inner_steps``, ``clip_norm``, ``memory_format``, ``engine`` and ``graph``.
        reduce: ``Ranks.reduce``, where the tasks are a share of the batch.

    Returns:
        Query loss and query accuracy in percent, means over the tasks, both from before the step.

    Raises:
        DivergenceError: loss or meta-gradient is not finite; the parameters are still those before the step.
        ValueError: tasks of another shape than ``config`` says.
    """
    check_tasks(tasks, config)
    optimizer.zero_grad()
    if chain := choose(learner, tasks, config):
        results = chain.meta_gradient(learner, tasks, config.inner_steps)
    else:
        results = graphed_gradient(learner, tasks, config)
    loss, percent = results.mean(0).tolist()
    if reduce is not None:
        loss, percent = reduce(optimizer, len(results), loss, percent)
    take_step(optimizer, config.clip_norm, loss)
    learner.advance()
    return loss, percent


def graphed_gradient(learner: MAML, tasks: Any, config: TrainConfig) -> Tensor:
    """``meta_gradient`` into gradients that are None, by a CUDA graph where ``config.graph`` and the learner let it."""
    parameters = [p for p in learner.parameters() if p.requires_grad]

    def run(*fields: Tensor) -> list[Tensor | None]:
        for p in parameters:
            p.grad = None
        return [meta_gradient(learner, Tasks(*fields), config), *(p.grad for p in parameters)]

    fields = tasks.support_x, tasks.support_y, tasks.query_x, tasks.query_y
    facts = "meta-step", config.inner_steps, config.precision, config.memory_format
    results, *grads = graphs.run(learner, config.graph, facts, run, fields, config.torch_memory_format)
    for p, grad in zip(parameters, grads, strict=True):
        p.grad = grad
    return results


def meta_gradient(learner: MAML, tasks: Any, config: TrainConfig) -> Tensor:
    """Query loss and accuracy ``[T, 2]``; the gradient of the mean loss is added to the parameters' ``.grad``."""
    results = []
    for support_x, support_y, query_x, query_y in placed(tasks, learner, config):
        clone = adapted(learner, support_x, support_y, config.inner_steps)
        with torch.set_grad_enabled(learner.uses_query):
            logits = clone(query_x)
            loss = F.cross_entropy(logits, query_y)
        objective = learner.objective(clone, loss, query_x, query_y)
        (objective / len(tasks.support_y)).backward()
        results.append(torch.stack([loss.detach(), accuracy(logits, query_y)]))
    return torch.stack(results)


def take_step(optimizer: torch.optim.Optimizer, clip_norm: float | None, loss: float) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise DivergenceError(
            f"expected a finite meta-loss and meta-gradient; got {loss} and norm {float(norm)}. "
            "Lower meta_lr or inner_lr, or set clip_norm"
        )
    if clip_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)
    optimizer.step()


def adapted(learner: MAML, support_x: Tensor, support_y: Tensor, steps: int) -> MAML:
    """A clone after ``steps`` inner steps on the cross-entropy of the support set."""
    clone = learner.clone()
    for _ in range(steps):
        clone.adapt(lambda clone: F.cross_entropy(clone(support_x), support_y))
    return clone


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """In percent: ``[N, ways]``, ``[N]`` to a 0-d tensor."""
    return (logits.detach().argmax(1) == labels).float().mean() * 100


def check_tasks(tasks: Any, config: TrainConfig) -> None:
    """Raise ``ValueError`` unless there are ``tasks``, and of the shape that ``config`` says."""
    if not len(tasks.support_y):
        raise ValueError("expected at least one task; got none. Sample more tasks than there are processes")
    expected = config.ways * config.shots, config.ways * config.queries
    got = tasks.support_y.shape[1], tasks.query_y.shape[1]
    if got != expected:
        raise ValueError(
            f"expected tasks of {expected[0]} support and {expected[1]} query images, ways * shots and ways * queries "
            f"of the config; got {got[0]} and {got[1]}. Give sampler and config the same numbers"
        )


def placed(tasks: Any, learner: MAML, config: TrainConfig) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Each task on the learner's device, images in its type and in the memory format of ``config``."""
    like, layout = next(learner.parameters()), config.torch_memory_format
    fields = tasks.support_x, tasks.support_y, tasks.query_x, tasks.query_y
    for support_x, support_y, query_x, query_y in zip(*fields, strict=True):
        images = [x.to(like.device, like.dtype, memory_format=layout) for x in (support_x, query_x)]
        yield images[0], support_y.to(like.device), images[1], query_y.to(like.device)
