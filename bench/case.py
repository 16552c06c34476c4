"""What a case module gives to be measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True)
class Candidate:
    """One way to do the work of a case.

    Attributes:
        name: layout, backend or package.
        role: `"dense"` (PyTorch's own; the fastest of these is what the others are compared with), `"sparse"` (ours),
            or `"peer"` (another package).
        run: what is timed.
        error: of what `run` returned, relative to the exact result (`relative_error`); below the case's tolerance, or
            the candidate is not timed.
    """

    name: str
    role: str
    run: Callable[[], Any]
    error: Callable[[Any], float]


class Case(Protocol):
    """One row of work.

    Attributes:
        labels: what it is, by column; with `"sparsity"`, a fraction, and `"threads"`, of PyTorch and the kernels.
        ideal: dense FLOPs over sparse FLOPs, the ratio of times that nothing but arithmetic would give.
        tolerance: largest relative error of a right result.
    """

    labels: Mapping[str, Any]
    ideal: float
    tolerance: float

    def candidates(self) -> Sequence[Candidate]:
        """Every way to do it, on the same numbers."""


def relative_error(got: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """Largest difference over the largest entry, of the worst tensor; infinite for other shapes and for NaN."""
    if [t.shape for t in got] != [t.shape for t in exact]:
        return float("inf")
    errors = [_relative_error(g.double(), e.double()) for g, e in zip(got, exact, strict=True)]
    return max((error if error == error else float("inf") for error in errors), default=0.0)


def _relative_error(got: Tensor, exact: Tensor) -> float:
    if not exact.numel():
        return 0.0
    scale = exact.abs().max().item()
    return ((got - exact).abs().max() / (scale or 1.0)).item()
