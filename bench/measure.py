"""Check each candidate of a case, then time those that are right."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch

from .case import Candidate, Case
from .timing import Budget, Spread, interleaved


@dataclass(frozen=True)
class Sample:
    """One candidate that was right: its time, and the relative error of its result."""

    name: str
    role: str
    seconds: Spread
    error: float


@dataclass(frozen=True)
class Result:
    """One case.

    Attributes:
        labels, ideal: as in `Case`.
        samples: candidates that were right, timed in turns.
        wrong: by `"role: name"`, why a candidate was not timed.
        load: processes that wanted a core, mean over the last minute at the end of the timing; None where unknown.
    """

    labels: dict[str, Any]
    ideal: float
    samples: list[Sample]
    wrong: dict[str, str]
    load: float | None

    @property
    def dense(self) -> Sample:
        """The fastest dense sample."""
        return min((s for s in self.samples if s.role == "dense"), key=lambda s: s.seconds.median)

    def ratio(self, sample: Sample) -> float:
        """How many times faster than dense, by the medians."""
        return self.dense.seconds.median / sample.seconds.median

    def efficiency(self, sample: Sample) -> float:
        """Which part of the ideal that is."""
        return self.ratio(sample) / self.ideal


def measure(case: Case, budget: Budget) -> Result:
    """Time the candidates of `case` whose result is right.

    Raises:
        RuntimeError: no dense candidate is right, so there is nothing to compare with.
    """
    torch.set_num_threads(case.labels["threads"])
    candidates = {f"{c.role}: {c.name}": c for c in case.candidates()}
    errors, wrong = {}, {}
    for key, candidate in candidates.items():
        try:
            errors[key] = _checked(candidate, case.tolerance)
        except Exception as problem:  # a candidate that cannot do this case is a finding; the others go on
            wrong[key] = str(problem).partition("\n")[0] or type(problem).__name__
    if not any(candidates[key].role == "dense" for key in errors):
        raise RuntimeError(f"expected a dense candidate to give the exact result of {case.labels}, got {wrong}")
    times = interleaved({key: candidates[key].run for key in errors}, budget)
    samples = [Sample(candidates[key].name, candidates[key].role, times[key], errors[key]) for key in errors]
    return Result(dict(case.labels), case.ideal, samples, wrong, _load())


class WrongResult(ValueError):
    """A candidate's result is not that of the definition."""


def _checked(candidate: Candidate, tolerance: float) -> float:
    error = candidate.error(candidate.run())
    if not error <= tolerance:
        raise WrongResult(f"relative error {error:.2g}, expected at most {tolerance:.2g}")
    return error


def _load() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
