"""Seconds of a meta-step, dense and sparse: the same function on the same tasks, interleaved in one process."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Sequence
from statistics import quantiles
from typing import Any

from torch import nn

from sparsemeta.data import TaskSampler
from sparsemeta.demo.settings import KEPT_DENSE, Settings
from sparsemeta.meta import make_learner, make_optimizer, meta_step
from sparsemeta.nn import sparsify
from sparsemeta.ticket import Ticket

WARM_UP = 3  # rounds that are not counted: kernels are planned, memory is taken
DENSE = ("contiguous", "channels_last")
UNPRUNED = "sparse, 0 % pruned"  # how much of the gain is the engine alone
NOT_COMPILED = "torch.compile is not among the layouts: it has no double backward, which a second-order step needs"


def time_meta_steps(
    dense: nn.Module, sparse: nn.Module, sampler: TaskSampler, settings: Settings, rounds: Iterable[int]
) -> dict[str, dict[str, float]]:
    """Seconds of a meta-step: each dense layout, ``"sparse"``, and the engine of sparse with every weight kept.

    The models are copied, not trained.

    In each round every candidate makes one step on the same tasks, beginning with another one each time, so that
    whatever else the machine does meets all of them alike.

    Args:
        rounds: numbers of the rounds; the first ``WARM_UP`` are not counted.

    Returns:
        ``{name: {"median": s, "lower_quartile": s, "upper_quartile": s, "rounds": n}}``
    """
    candidates = {layout: candidate(dense, settings, layout) for layout in DENSE}
    everything = Ticket.magnitude(dense, sparsity=0, exclude=KEPT_DENSE)
    for name, model in ((UNPRUNED, sparsify(dense, everything)), ("sparse", sparse)):
        candidates[name] = candidate(model, settings, "contiguous")
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    for number in rounds:
        tasks = sampler.sample(settings.meta_batch)
        first = number % len(names)
        for name in names[first:] + names[:first]:
            begin = time.perf_counter()
            learner, optimizer, config = candidates[name]
            meta_step(learner, tasks, optimizer, config)
            seconds[name].append(time.perf_counter() - begin)
    return {name: spread(taken[WARM_UP:]) for name, taken in seconds.items()}


def candidate(model: nn.Module, settings: Settings, layout: str) -> tuple[Any, ...]:
    config = settings.config(layout)
    learner = make_learner(copy.deepcopy(model).train(), config)
    return learner, make_optimizer(learner, config), config


def spread(seconds: Sequence[float]) -> dict[str, float]:
    lower, median, upper = quantiles(seconds, n=4, method="inclusive")
    return {"median": median, "lower_quartile": lower, "upper_quartile": upper, "rounds": len(seconds)}
