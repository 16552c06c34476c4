"""Accuracy and adaptation time of every Lambda pattern, and the pattern to take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..bench.timing import Budget
from .config import TrainConfig
from .evaluate import learner_to_judge, untouched
from .lambda_adapt import LambdaAdaptation
from .lambda_file import ResultsFile
from .lambda_layers import LayerRule, pattern_layers
from .lambda_pattern import LambdaPattern, all_patterns
from .lambda_records import REFERENCE, LambdaSearch, records_of, summed_up
from .lambda_trial import Trial, measure


def lambda_search(
    model: nn.Module,
    sampler: Any,
    config: TrainConfig,
    patterns: Sequence[str | LambdaPattern] | None = None,
    delta: float = 1.0,
    budget: float | None = None,
    tasks: int = 200,
    timing: Budget | None = None,
    layers: LayerRule | None = None,
    prefix_cache: bool = True,
    reference: nn.Module | None = None,
    results: str | Path | None = None,
    progress: bool = True,
    retime: bool = False,
) -> LambdaSearch:
    """Measure Lambda patterns (Khabarlak 2022, arXiv 2206.05930) on meta-validation tasks and take the best.

    All patterns adapt to the same tasks, with ``eval_inner_steps`` steps of ``inner_lr``. Their times are of one
    adaptation to the first of these tasks, without the queries, the patterns in turns. The model may be sparse: times
    and patterns are then those of the ticket. Model and sampler are left as they were.

    Args:
        model: the trained model, or a learner.
        sampler: gives meta-validation tasks: ``sample(n)``, ``state_dict()``, ``load_state_dict(state)``.
        config: as for training.
        patterns: which to try; the full one is always among them. None for all ``2 ** layers - 1`` of one row.
        delta: points of accuracy that may be lost against the reference; the fastest such pattern is taken.
        budget: seconds of an adaptation; if given, the pattern with the best accuracy within it is taken instead.
        tasks: at least 2.
        timing: how long to time; None for 20 rounds and a second at least.
        layers: what the bits stand for, see ``pattern_layers``.
        prefix_cache: see ``LambdaAdaptation``.
        reference: another model or learner, such as the dense one of a ticket, with whose full pattern all are
            compared; None for that of ``model``.
        results: JSON file that takes each pattern's figures as they come, and from which a search goes on.
        progress: show a bar.
        retime: measure the times even if ``results`` has them, as those of a busy machine.

    Raises:
        ValueError: patterns that do not fit, numbers out of range, ``results`` of another search.
    """
    if tasks < 2 or not 0 <= delta < math.inf or (budget is not None and not budget > 0):
        raise ValueError(f"expected tasks >= 2, delta >= 0 and budget > 0; got {tasks}, {delta} and {budget}")
    trial = Trial(learner_to_judge(model, config), sampler, config, tasks)
    ways = adaptations(trial, patterns, layers, prefix_cache)
    full, models = next(iter(ways)), {"model": trial.learner}
    if reference is not None:
        models[REFERENCE] = learner_to_judge(reference, config)
        ways[REFERENCE] = LambdaAdaptation(models[REFERENCE], LambdaPattern(full), layers)
    about = {**trial.facts, "layers": len(full), "prefix_cache": prefix_cache, "threads": torch.get_num_threads()}
    with ExitStack() as stack:
        for learner in models.values():
            stack.enter_context(untouched(learner.module, sampler, config.seed))
        states = {name: learner.state_dict() for name, learner in models.items()}
        file = ResultsFile(results, about, {**states, "tasks": dict(enumerate(trial.first))})
        measure(ways, trial, file, timing or Budget(), progress, retime)
    compared = full if reference is None else REFERENCE
    records = records_of({name: file.accuracies[name] for name in ways}, file.seconds, compared)
    return summed_up(records, compared, delta, budget, about)


def adaptations(
    trial: Trial, patterns: Sequence[str | LambdaPattern] | None, layers: LayerRule | None, prefix_cache: bool
) -> dict[str, LambdaAdaptation]:
    """One for each pattern, the full one first."""
    full = LambdaPattern.full(len(pattern_layers(trial.learner.module, layers)))
    made = all_patterns(full.layers) if patterns is None else [full, *(LambdaPattern(str(p)) for p in patterns)]
    for pattern in made:
        pattern.check(full.layers, trial.steps)
    return {str(p): LambdaAdaptation(trial.learner, p, layers, prefix_cache) for p in made}
