"""Accuracy of a model after adaptation, over many tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .chain import choose
from .config import TrainConfig
from .distributed import Ranks
from .lambda_adapt import LambdaAdaptation
from .lambda_pattern import LambdaPattern
from .maml import MAML
from .meta_step import accuracy, adapted, check_tasks, make_learner, placed
from .precision import forward_in
from .seeds import seeded


@dataclass(frozen=True)
class Evaluation:
    """Few-shot accuracy.

    Attributes:
        accuracy: mean query accuracy over the tasks, in percent.
        interval: half the width of its 95 % interval, in percentage points: ``1.96 * s / sqrt(tasks)``.
        tasks: number of tasks.
        loss: mean query loss.
        bn_mode: batch-norm mode of the figures; those of different modes do not compare.
        accuracies: of each task, in percent.
    """

    accuracy: float
    interval: float
    tasks: int
    loss: float
    bn_mode: str
    accuracies: tuple[float, ...] = field(repr=False)

    def minus(self, other: Evaluation) -> tuple[float, float]:
        """Mean difference to an evaluation on the same tasks, and half of its 95 % interval, in percentage points.

        Tasks are compared one by one, so that what makes a task hard for both does not count.

        Raises:
            ValueError: another number of tasks.
        """
        if self.tasks != other.tasks:
            raise ValueError(f"expected an evaluation on the same {self.tasks} tasks, got one on {other.tasks}")
        return mean_and_interval(torch.tensor(self.accuracies).double() - torch.tensor(other.accuracies).double())

    def __str__(self) -> str:
        percent = f"{self.accuracy:.2f} +- {self.interval:.2f} %"
        return f"{percent} ({self.tasks} tasks, 95 % interval, bn_mode={self.bn_mode})"


def evaluate(
    model: nn.Module,
    sampler: Any,
    config: TrainConfig,
    tasks: int = 600,
    ranks: Ranks | None = None,
    pattern: str | LambdaPattern | None = None,
) -> Evaluation:
    """Query accuracy after ``eval_inner_steps`` inner steps, over the next ``tasks`` tasks of ``sampler``.

    The number of steps is fixed beforehand; it is never the best over steps. The model runs in ``eval()`` and is left
    as it was, buffers and modes included, and so is the sampler: a second model is judged on the same tasks.

    Args:
        model: the model, or a learner, which brings what it has learned beside the model.
        sampler: gives the tasks: ``sample(n)``, ``state_dict()``, ``load_state_dict(state)``.
        config: as for training.
        tasks: at least 2.
        ranks: the processes that share the tasks out and all learn the result.
        pattern: which layers the inner loop moves, see ``LambdaAdaptation``; None for all.

    Raises:
        ValueError: fewer than 2 tasks, tasks of another shape than ``config`` says, a pattern of other layers or
            steps, or a model alone where its learner learns something too.
    """
    if tasks < 2:
        raise ValueError(f"expected at least 2 tasks, for an interval; got {tasks}")
    learner = learner_to_judge(model, config)
    with untouched(learner.module, sampler, config.seed), forward_in(learner.module, config.precision):
        held = None if pattern is None else LambdaAdaptation(learner, LambdaPattern(str(pattern)))
        rows = judge_all(learner, sampler, config, tasks, ranks or Ranks(), held)
    losses, accuracies = rows.unbind(1)
    figures = *mean_and_interval(accuracies), tasks, losses.mean().item()
    return Evaluation(*figures, config.bn_mode, tuple(accuracies.tolist()))


def mean_and_interval(values: Tensor) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval."""
    return values.mean().item(), 1.96 * values.std().item() / math.sqrt(len(values))


def learner_to_judge(model: nn.Module, config: TrainConfig) -> MAML:
    """A learner without the graph of the meta-gradient, which changes no number here; see ``evaluate``."""
    learner = model if isinstance(model, MAML) else make_learner(model, config)
    own = [name for name, _ in learner.named_parameters() if not name.startswith("module.")]
    if own and learner is not model:
        raise ValueError(
            f"expected the learner, since algorithm={config.algorithm!r} with bn_mode={config.bn_mode!r} also learns "
            f"{own[0]} and the like; got the model alone. Give train(...).learner, or load_trained(checkpoint).learner"
        )
    return learner.clone(first_order=True)


def judge_all(
    learner: MAML, sampler: Any, config: TrainConfig, tasks: int, ranks: Ranks, held: LambdaAdaptation | None
) -> Tensor:
    """Query loss and accuracy, float64 ``[tasks, 2]``; each rank fills in the rows of its share."""
    rows = torch.zeros(tasks, 2, dtype=torch.float64, device=next(learner.module.parameters()).device)
    steps = config.eval_inner_steps or config.inner_steps
    for start in range(0, tasks, config.meta_batch):
        batch = sampler.sample(min(config.meta_batch, tasks - start))
        span = ranks.span(len(batch.support_y))
        if share := range(start, start + len(batch.support_y))[span]:
            rows[share.start : share.stop] = judgements(learner, ranks.share(batch), config, steps, held).to(rows)
    return ranks.sum(rows)


def judgements(
    learner: MAML, tasks: Any, config: TrainConfig, steps: int, held: LambdaAdaptation | None = None
) -> Tensor:
    """Query loss and accuracy ``[T, 2]`` on each task, of ``learner`` or of its adaptation ``held``."""
    check_tasks(tasks, config)
    whole = held.as_rates() if held else learner
    if whole and (chain := choose(whole, tasks, config)):
        return chain.judged(whole, tasks, steps)
    adapt = held or partial(adapted, learner)
    return torch.stack([judged(adapt, *task, steps) for task in placed(tasks, learner, config)])


def judged(
    adapt: Callable[[Tensor, Tensor, int], MAML],
    support_x: Tensor,
    support_y: Tensor,
    query_x: Tensor,
    query_y: Tensor,
    steps: int,
) -> Tensor:
    """Query loss and accuracy ``[2]`` on one task."""
    with torch.enable_grad():
        clone = adapt(support_x, support_y, steps)
    with torch.no_grad():
        logits = clone(query_x)
        return torch.stack([F.cross_entropy(logits, query_y), accuracy(logits, query_y)])


@contextmanager
def untouched(model: nn.Module, sampler: Any, seed: int) -> Iterator[None]:
    """``model`` in ``eval()`` and random numbers from ``seed``; afterwards modes, sampler and generators as before."""
    modes, place = [(module, module.training) for module in model.modules()], sampler.state_dict()
    try:
        with seeded(seed, next(model.parameters()).device):
            model.eval()
            yield
    finally:
        for module, training in modes:
            module.training = training
        sampler.load_state_dict(place)
