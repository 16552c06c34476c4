"""Early detection of meta winning tickets: has the pattern that a level would keep stopped moving?"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..ticket import Ticket
from .algebra import overlap


@dataclass(frozen=True)
class Distances:
    """How far the pattern moved between two checks."""

    inter: float
    intra: float


def distances(now: Ticket, before: Ticket) -> Distances:
    """Distances of two patterns of the same weights (MWT, Gao et al., KDD 2022; reconstruction).

    The inter-layer pattern is rho_l, the kept fraction of layer l, and `inter` the mean of |rho_l - rho_l before| over
    the layers; the intra-layer pattern is which weights are kept, and `intra` is 1 - |now and before| / |now|.
    """
    moved = [abs(kept_fraction(now)[name] - kept_fraction(before)[name]) for name in now]
    return Distances(sum(moved) / len(moved), 1 - overlap(now, before).shared)


def kept_fraction(ticket: Ticket) -> dict[str, float]:
    """rho: the kept fraction of each layer, by the name of its weight."""
    return {name: pattern.nnz / pattern.numel for name, pattern in ticket.items()}


@dataclass(frozen=True)
class Detector:
    """When a level has been trained enough (MWT, Gao et al., KDD 2022; reconstruction).

    Attributes:
        every: steps between two checks, D.
        inter, intra: distances that count as none.
        checks: how many distances in a row must stay under both, q.
        cap: most steps of a level.

    Raises:
        ValueError: a value out of range.
    """

    every: int = 250
    inter: float = 0.02
    intra: float = 0.10
    checks: int = 5
    cap: int = 7500

    def __post_init__(self) -> None:
        counts = all(isinstance(n, int) and n >= 1 for n in (self.every, self.checks, self.cap))
        if not counts or self.cap < self.every or not (self.inter >= 0 and self.intra >= 0):
            raise ValueError(
                f"expected distances of at least 0, and whole numbers of at least 1 with every <= cap; got {self}. "
                f"Check once a level at the least"
            )


@dataclass(frozen=True)
class Level:
    """How far a level is.

    Attributes:
        number: from 0.
        steps: made in this level.
        calm: distances in a row that stayed under both thresholds, up to the last check.
    """

    number: int = 0
    steps: int = 0
    calm: int = 0

    def checked(self, detector: Detector, steps: int, moved: Distances | None) -> Level:
        """After `steps` more steps and a check; `moved` is None at the first check of a level."""
        calm = moved is not None and moved.inter < detector.inter and moved.intra < detector.intra
        return replace(self, steps=self.steps + steps, calm=self.calm + 1 if calm else 0)

    def over(self, detector: Detector) -> str:
        """Why the level is over, `"stable"` or `"cap"`; empty while it is not."""
        if self.calm >= detector.checks:
            return "stable"
        return "cap" if self.steps >= detector.cap else ""

    def next_check(self, detector: Detector) -> int:
        """Steps to the next check."""
        return min(detector.every, detector.cap - self.steps)
