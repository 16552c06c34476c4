"""What a search over Lambda patterns finds, and which pattern it takes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

REFERENCE = "reference"


@dataclass(frozen=True)
class PatternRecord:
    """One pattern on the tasks of a search.

    Attributes:
        pattern: its text, or ``"reference"`` for another model's full pattern.
        accuracy, interval: mean query accuracy in percent, half its 95 % interval in points.
        gain, gain_interval: accuracy less that of the reference on the same tasks, and half the 95 % interval of that
            difference, in points. It is narrower than those of the two accuracies: most of their spread is tasks.
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
        reference: what all are compared with: MAML, the full pattern, of the model or of another.
        chosen: the one taken; None where none is good or fast enough.
        rule: how it was taken.
        about: what was searched: layers, inner steps, tasks, batch-norm mode, prefix cache, threads.
    """

    records: tuple[PatternRecord, ...]
    reference: PatternRecord
    chosen: PatternRecord | None
    rule: str
    about: Mapping[str, object]

    def speedup(self, record: PatternRecord) -> float:
        """How many times faster than the reference."""
        return self.reference.seconds / record.seconds

    @property
    def front(self) -> list[PatternRecord]:
        """Records with a better accuracy than every faster one: the Pareto front, fastest first."""
        best = [-math.inf]
        return [r for r in self.records if r.accuracy > best[-1] and not best.append(r.accuracy)]


def summed_up(
    records: Sequence[PatternRecord], reference: str, delta: float, budget: float | None, about: Mapping[str, object]
) -> LambdaSearch:
    """The search whose measurements are ``records``.

    Args:
        records: of all patterns and, if it is none of them, of the reference.
        reference: its name.
        delta: points of accuracy that may be lost: argmin seconds s.t. accuracy >= that of the reference - delta.
        budget: seconds; if given, instead: argmax accuracy s.t. seconds <= budget.
        about: see ``LambdaSearch``.

    The rules are a reconstruction of Khabarlak's (2022, arXiv 2206.05930).
    """
    records = sorted(records, key=lambda r: r.seconds)
    compared = next(r for r in records if r.pattern == reference)
    patterns = [r for r in records if r.pattern != REFERENCE]
    if budget is not None:
        within, rule = [r for r in patterns if r.seconds <= budget], f"best accuracy within {budget * 1e3:g} ms"
        best = max(within, key=lambda r: (r.accuracy, -r.seconds), default=None)
    else:
        good = [r for r in patterns if r.accuracy >= compared.accuracy - delta]
        best, rule = next(iter(good), None), f"fastest within {delta:g} points of {reference}"
    return LambdaSearch(tuple(records), compared, best, rule, about)


def records_of(
    accuracies: Mapping[str, Sequence[float]], seconds: Mapping[str, Sequence[float]], reference: str
) -> list[PatternRecord]:
    """From the accuracy in percent on each task, and quartiles and median of the seconds, of each pattern."""
    records = []
    for pattern, own in accuracies.items():
        gains = [a - b for a, b in zip(own, accuracies[reference], strict=True)]
        lower, median, upper = seconds[pattern]
        records.append(PatternRecord(pattern, *mean_and_interval(own), *mean_and_interval(gains), median, lower, upper))
    return records


def mean_and_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval: ``1.96 * s / sqrt(n)``."""
    return statistics.mean(values), 1.96 * statistics.stdev(values) / math.sqrt(len(values))
