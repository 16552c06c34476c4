"""What a search over Lambda patterns finds, and which pattern it takes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PatternRecord:
    """One pattern on the tasks of a search.

    Attributes:
        pattern: its text.
        accuracy, interval: mean query accuracy in percent, half its 95 % interval in points.
        gain, gain_interval: accuracy less that of the full pattern on the same tasks, and half the 95 % interval of
            that difference, in points. It is narrower than those of the two accuracies: most of their spread is tasks.
        seconds: of one adaptation, median over the rounds.
        lower, upper: its quartiles.
    """

    pattern: str
    accuracy: float
    interval: float
    gain: float
    gain_interval: float
    seconds: float
    lower: float
    upper: float


@dataclass(frozen=True)
class LambdaSearch:
    """The records of a search, fastest first.

    Attributes:
        records: one for each pattern.
        full: that of the full pattern, MAML.
        chosen: the one taken; None where nothing is within the budget.
        rule: how it was taken.
        about: what was searched: layers, inner steps, tasks, batch-norm mode, prefix cache, threads.
    """

    records: tuple[PatternRecord, ...]
    full: PatternRecord
    chosen: PatternRecord | None
    rule: str
    about: Mapping[str, object]

    def speedup(self, record: PatternRecord) -> float:
        """How many times faster than the full pattern."""
        return self.full.seconds / record.seconds

    @property
    def front(self) -> list[PatternRecord]:
        """Records with a better accuracy than every faster one: the Pareto front, fastest first."""
        best = [-math.inf]
        return [r for r in self.records if r.accuracy > best[-1] and not best.append(r.accuracy)]


def chosen(
    records: Sequence[PatternRecord], full: PatternRecord, delta: float, budget: float | None
) -> tuple[PatternRecord | None, str]:
    """The record to take, and the rule in words (papers: Khabarlak 2022; the form of the rules is a reconstruction).

    Args:
        records: of all patterns.
        full: of the full one.
        delta: points of accuracy that may be lost: argmin seconds s.t. accuracy >= that of full - delta.
        budget: seconds; if given, instead: argmax accuracy s.t. seconds <= budget.
    """
    if budget is not None:
        within = [r for r in records if r.seconds <= budget]
        best = max(within, key=lambda r: (r.accuracy, -r.seconds), default=None)
        return best, f"best accuracy within {budget * 1e3:g} ms"
    good = [r for r in records if r.accuracy >= full.accuracy - delta]
    return min(good, key=lambda r: r.seconds), f"fastest within {delta:g} points of {full.pattern}"


def records_of(
    accuracies: Mapping[str, Sequence[float]], seconds: Mapping[str, Sequence[float]], full: str
) -> list[PatternRecord]:
    """From the accuracy in percent on each task, and quartiles and median of the seconds, of each pattern."""
    records = []
    for pattern, own in accuracies.items():
        gains = [a - b for a, b in zip(own, accuracies[full], strict=True)]
        lower, median, upper = seconds[pattern]
        records.append(PatternRecord(pattern, *mean_and_interval(own), *mean_and_interval(gains), median, lower, upper))
    return sorted(records, key=lambda r: r.seconds)


def mean_and_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval: ``1.96 * s / sqrt(n)``."""
    return statistics.mean(values), 1.96 * statistics.stdev(values) / math.sqrt(len(values))
