"""Accuracy and adaptation time of every Lambda pattern, and the pattern to take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..bench.timing import Budget
from .config import TrainConfig
from .evaluate import untouched
from .lambda_adapt import LambdaAdaptation
from .lambda_file import ResultsFile
from .lambda_layers import LayerRule, pattern_layers
from .lambda_pattern import LambdaPattern, all_patterns
from .lambda_records import LambdaSearch, chosen, records_of
from .lambda_trial import Trial, judge, times
from .maml import MAML
from .meta_step import make_learner


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
    results: str | Path | None = None,
    progress: bool = True,
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
        delta: points of accuracy that may be lost against the full pattern; the fastest such pattern is taken.
        budget: seconds of an adaptation; if given, the pattern with the best accuracy within it is taken instead.
        tasks: at least 2.
        timing: how long to time; None for 20 rounds and a second at least.
        layers: what the bits stand for, see ``pattern_layers``.
        prefix_cache: see ``LambdaAdaptation``.
        results: JSON file that takes each pattern's figures as they come, and from which a search goes on.
        progress: show a bar.

    Raises:
        ValueError: patterns that do not fit, numbers out of range, ``results`` of another search.
    """
    if tasks < 2 or not 0 <= delta < math.inf or (budget is not None and not budget > 0):
        raise ValueError(f"expected tasks >= 2, delta >= 0 and budget > 0; got {tasks}, {delta} and {budget}")
    learner = model if isinstance(model, MAML) else make_learner(model, config)
    trial = Trial(learner.clone(first_order=True), sampler, config, tasks)  # the same numbers, without the graph
    full = LambdaPattern.full(len(pattern_layers(learner.module, layers)))
    ways = {
        str(pattern): LambdaAdaptation(trial.learner, pattern, layers, prefix_cache)
        for pattern in listed(patterns, full, trial.steps)
    }
    about = {**trial.facts, "layers": full.layers, "prefix_cache": prefix_cache, "threads": torch.get_num_threads()}
    with untouched(learner.module, sampler, config.seed):
        file = ResultsFile(results, about, {"model": learner.state_dict(), "tasks": dict(enumerate(trial.first))})
        judge(ways, trial, file, progress)
        if not ways.keys() <= file.seconds.keys():
            file.add_seconds(times(ways, trial, timing or Budget()))
    records = records_of({pattern: file.accuracies[pattern] for pattern in ways}, file.seconds, full.text)
    of_full = next(record for record in records if record.pattern == full.text)
    return LambdaSearch(tuple(records), of_full, *chosen(records, of_full, delta, budget), about)


def listed(patterns: Sequence[str | LambdaPattern] | None, full: LambdaPattern, steps: int) -> list[LambdaPattern]:
    """Each pattern once, the full one first."""
    if patterns is None:
        return all_patterns(full.layers)
    made = [p if isinstance(p, LambdaPattern) else LambdaPattern(p) for p in patterns]
    for pattern in made:
        pattern.check(full.layers, steps)
    return list(dict.fromkeys([full, *made]))
