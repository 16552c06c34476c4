"""Times of several ways to do the same work, taken in turns, so that what disturbs one disturbs all."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Seconds of one call over the rounds: median, first and third quartile."""

    median: float
    lower: float
    upper: float
    rounds: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        """Of at least two times."""
        lower, median, upper = statistics.quantiles(seconds, n=4, method="inclusive")
        return cls(median, lower, upper, len(seconds))

    @property
    def relative(self) -> float:
        """Distance of the quartiles as a fraction of the median."""
        return (self.upper - self.lower) / self.median if self.median else 0.0


@dataclass(frozen=True)
class Budget:
    """How long to measure: at least `rounds` rounds and `seconds` seconds, after `warm_up` rounds that do not count.

    Raises:
        ValueError: fewer than 2 rounds (there would be no spread), or a negative number.
    """

    rounds: int = 20
    seconds: float = 1.0
    warm_up: int = 2

    def __post_init__(self) -> None:
        if self.rounds < 2 or self.seconds < 0 or self.warm_up < 0:
            raise ValueError(f"expected at least 2 rounds and no negative time or warm-up, got {self}")


def interleaved(
    calls: Mapping[str, Callable[[], object]], budget: Budget, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Spread]:
    """Spread of each call. Every round runs all of them once, in an order of its own, so none has a fixed neighbour."""
    order, shuffle = list(calls), random.Random(0).shuffle
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    with _no_collection():
        for _ in range(budget.warm_up):
            _round(calls, order, clock)
        end, rounds = clock() + budget.seconds, 0
        while rounds < budget.rounds or clock() < end:
            shuffle(order)
            for name, taken in _round(calls, order, clock):
                seconds[name].append(taken)
            rounds += 1
    return {name: Spread.of(taken) for name, taken in seconds.items()}


def _round(
    calls: Mapping[str, Callable[[], object]], order: Sequence[str], clock: Callable[[], float]
) -> list[tuple[str, float]]:
    taken = []
    for name in order:
        call = calls[name]
        begin = clock()
        call()  # its result is freed inside the time, as it would be in a program
        taken.append((name, clock() - begin))
    return taken


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python's cyclic garbage collector would strike one call in many; nothing timed here makes cycles."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
