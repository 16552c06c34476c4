"""Schedules: through which sparsities pruning goes, the last being the one asked for."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..ticket_selection import check_sparsity

SCHEDULES: dict[str, Callable[..., tuple[float, ...]]] = {}


def one_shot(sparsity: float) -> tuple[float, ...]:
    """All at once."""
    check_sparsity(sparsity)
    return (sparsity,)


def iterative(sparsity: float, fraction: float = 0.2, rounds: int | None = None) -> tuple[float, ...]:
    """`fraction` of what remains in each round, `1 - (1 - fraction)^k` (Frankle and Carbin 2019, arXiv 1803.03635).

    `rounds`: by default the nearest whole number, 7 for 0.8; the last round ends at exactly `sparsity`.
    """
    check_sparsity(sparsity)
    if not 0 < fraction < 1:
        raise ValueError(f"expected fraction, pruned of what remains, between 0 and 1, got {fraction!r}")
    if rounds is None:
        rounds = max(1, round(math.log(1 - sparsity) / math.log(1 - fraction)))
    _check_rounds(rounds)
    before = (1 - (1 - fraction) ** k for k in range(1, rounds))
    return (*(level for level in before if level < sparsity), sparsity)


def exponential(sparsity: float, rounds: int = 100) -> tuple[float, ...]:
    """The same fraction of what remains in each of `rounds` rounds (Tanaka et al. 2020, arXiv 2006.05467)."""
    check_sparsity(sparsity)
    _check_rounds(rounds)
    return (*(1 - (1 - sparsity) ** (k / rounds) for k in range(1, rounds)), sparsity)


def gradual(sparsity: float, rounds: int = 10, start: float = 0.0) -> tuple[float, ...]:
    """Cubic from `start`: fast while much is left (Zhu and Gupta 2017, arXiv 1710.01878, eq. 1)."""
    check_sparsity(sparsity)
    _check_rounds(rounds)
    if not 0 <= start <= sparsity:
        raise ValueError(f"expected start, a sparsity, from 0 to {sparsity}, got {start!r}")
    return (*(sparsity + (start - sparsity) * (1 - k / rounds) ** 3 for k in range(1, rounds)), sparsity)


def schedule(name: str, sparsity: float, **options: float) -> tuple[float, ...]:
    """The sparsities of a schedule by name.

    Raises:
        ValueError: no such schedule, or arguments out of range.
    """
    if name not in SCHEDULES:
        raise ValueError(f"expected schedule to be one of {', '.join(SCHEDULES)}, got {name!r}")
    return SCHEDULES[name](sparsity, **options)


def _check_rounds(rounds: int) -> None:
    if not isinstance(rounds, int) or rounds < 1:
        raise ValueError(f"expected rounds to be an integer of at least 1, got {rounds!r}")


SCHEDULES |= {"one-shot": one_shot, "iterative": iterative, "exponential": exponential, "gradual": gradual}
