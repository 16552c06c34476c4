"""Seconds of a meta-step of several networks: the same function on the same tasks, in turns, in one process."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ..data import TaskSampler
from ..demo.settings import KEPT_DENSE
from ..demo.timing import DENSE, UNPRUNED, WARM_UP, spread
from ..meta import TrainConfig, make_learner, make_optimizer, meta_step
from ..nn import sparsify
from ..ticket import Ticket


def time_all(
    dense: nn.Module, sparse: Mapping[str, nn.Module], sampler: TaskSampler, config: TrainConfig, rounds: int
) -> dict[str, dict[str, float]]:
    """Seconds of `dense` in each layout of PyTorch, of our engine with every weight kept, and of each sparse network.

    The models are copied, not trained. In every round each makes one step on the same tasks, beginning with another one
    each time.

    Returns:
        `{name: {"median": s, "lower_quartile": s, "upper_quartile": s, "rounds": n}}`
    """
    everything = Ticket.magnitude(dense, sparsity=0, exclude=KEPT_DENSE)
    ways = {layout: prepared(dense, replace(config, engine="autograd", memory_format=layout)) for layout in DENSE}
    models = {UNPRUNED: sparsify(dense, everything), **sparse}
    ways |= {name: prepared(model, replace(config, engine="auto")) for name, model in models.items()}
    clock, names = clock_for(dense), list(ways)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + WARM_UP):
        tasks, first = sampler.sample(config.meta_batch), number % len(names)
        for name in names[first:] + names[:first]:
            begin = clock()
            learner, optimizer, own = ways[name]
            meta_step(learner, tasks, optimizer, own)
            seconds[name].append(clock() - begin)
    return {name: spread(taken[WARM_UP:]) for name, taken in seconds.items()}


def prepared(model: nn.Module, config: TrainConfig) -> tuple[Any, ...]:
    """A copy's learner and optimiser, and the configuration."""
    learner = make_learner(copy.deepcopy(model).train(), config)
    return learner, make_optimizer(learner, config), config


def clock_for(model: nn.Module) -> Callable[[], float]:
    """The processor's seconds, which nothing else on the machine stretches, where one thread of it does everything."""
    alone = torch.get_num_threads() == 1 and next(model.parameters()).device.type == "cpu"
    return time.process_time if alone else time.perf_counter
