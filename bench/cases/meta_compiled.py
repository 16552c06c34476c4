"""The dense meta-step written with `torch.func` and compiled whole: `torch.compile` knows no double backward, but this.

One graph holds every inner step, and compiling takes minutes: about one for each inner step of second order.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad

from sparsemeta.data.tasks import Tasks
from sparsemeta.meta import TrainConfig, make_learner, make_optimizer

Weights = dict[str, Tensor]


def compiled(model: nn.Module, tasks: Tasks, config: TrainConfig) -> Callable[[], list[Tensor]]:
    """The meta-step, with Adam; it returns the meta-gradient in one vector.

    `model` normalises by the statistics of its batch and stores none (`track_running_stats=False`).
    """
    learner = make_learner(model, config)
    optimizer = make_optimizer(learner, config)
    torch.compiler.reset()  # otherwise, after some shapes, it would go on without compiling
    gradient = torch.compile(grad(_meta_loss(model, config)), dynamic=False)
    drawn = list(zip(tasks.support_x, tasks.support_y, tasks.query_x, tasks.query_y, strict=True))

    def run() -> list[Tensor]:
        weights = {name: weight.detach() for name, weight in model.named_parameters()}
        each = [gradient(weights, *task) for task in drawn]
        for name, weight in model.named_parameters():
            weight.grad = sum(found[name] for found in each) / len(each)
        optimizer.step()
        return [torch.cat([weight.grad.flatten() for weight in model.parameters()])]

    return run


def _meta_loss(model: nn.Module, config: TrainConfig) -> Callable[..., Tensor]:
    def loss(weights: Weights, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, weights, (x,)), y)

    def meta_loss(weights: Weights, support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor) -> Tensor:
        for _ in range(config.inner_steps):
            found = grad(loss)(weights, support_x, support_y)
            steps = {name: g.detach() if config.first_order else g for name, g in found.items()}
            weights = {name: weight - config.inner_lr * steps[name] for name, weight in weights.items()}
        return loss(weights, query_x, query_y)

    return meta_loss
