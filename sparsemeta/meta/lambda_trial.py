"""What every Lambda pattern of a search goes through: the same tasks, and the same clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch

from ..bench.timing import Budget, interleaved
from ..data.tasks import Task, Tasks
from .config import TrainConfig
from .evaluate import judgements
from .lambda_adapt import LambdaAdaptation
from .lambda_file import ResultsFile
from .lambda_report import pattern_bar
from .maml import MAML
from .meta_step import placed


class Trial:
    """A learner, and the same ``count`` tasks from the sampler each time."""

    def __init__(self, learner: MAML, sampler: Any, config: TrainConfig, count: int):
        self.learner, self.sampler, self.config, self.count = learner, sampler, config, count
        self.place = sampler.state_dict()
        self.steps = config.eval_inner_steps or config.inner_steps

    @property
    def facts(self) -> dict[str, Any]:
        """What it is, as far as a config says it."""
        names = "algorithm", "ways", "shots", "queries", "inner_lr", "bn_mode", "memory_format", "seed"
        return {**{n: getattr(self.config, n) for n in names}, "inner_steps": self.steps, "tasks": self.count}

    @property
    def first(self) -> Task:
        """The first task."""
        return next(placed(next(self.batches()), self.learner, self.config))

    def batches(self) -> Iterator[Tasks]:
        """The tasks, a few in memory at a time."""
        self.sampler.load_state_dict(self.place)
        size = self.config.meta_batch
        for start in range(0, self.count, size):
            yield self.sampler.sample(min(size, self.count - start))

    def judgements(self, adaptation: LambdaAdaptation, tasks: Tasks) -> list[list[float]]:
        """Query loss and accuracy in percent on each of ``tasks``."""
        return judgements(adaptation.learner, tasks, self.config, self.steps, adaptation).tolist()


def measure(
    ways: Mapping[str, LambdaAdaptation], trial: Trial, file: ResultsFile, timing: Budget, shown: bool, retime: bool
) -> None:
    """Accuracies and times of ``ways`` by name, into ``file``, which may have some; times anew with ``retime``."""
    judge(ways, trial, file, shown)
    if retime or not ways.keys() <= file.seconds.keys():
        file.add_seconds(times(ways, trial, timing))


def judge(ways: Mapping[str, LambdaAdaptation], trial: Trial, file: ResultsFile, shown: bool) -> None:
    """Query accuracy of each way on each task."""
    with pattern_bar(len(ways), shown) as advance:
        for pattern, adaptation in ways.items():
            if pattern not in file.accuracies:
                percent = [row[1] for batch in trial.batches() for row in trial.judgements(adaptation, batch)]
                file.add_accuracies(pattern, percent)
            advance(pattern, file.accuracies[pattern])


def times(ways: Mapping[str, LambdaAdaptation], trial: Trial, timing: Budget) -> dict[str, tuple[float, ...]]:
    """Lower quartile, median and upper quartile of the seconds of one adaptation, the patterns in turns."""
    support_x, support_y, *_ = trial.first

    def run(adaptation: LambdaAdaptation) -> None:
        adaptation(support_x, support_y, trial.steps)
        if support_x.is_cuda:
            torch.cuda.synchronize()

    with torch.enable_grad():
        spreads = interleaved({name: partial(run, adaptation) for name, adaptation in ways.items()}, timing)
    return {name: (s.lower, s.median, s.upper) for name, s in spreads.items()}
