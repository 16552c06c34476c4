"""What a run remembers of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class StepRecord:
    """One meta-step: its number from 1, query loss, query accuracy in percent, and its seconds without the sampling.

    ``processor_seconds`` are those of all threads of this process, whatever else the machine does meanwhile.
    """

    step: int
    loss: float
    accuracy: float
    seconds: float
    processor_seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class ValidationRecord:
    """A validation after meta-step ``step``: accuracy in percent, half its 95 % interval, and loss."""

    step: int
    accuracy: float
    interval: float
    loss: float


def best(validations: Sequence[ValidationRecord]) -> ValidationRecord | None:
    """The first of those with the highest accuracy."""
    return max(validations, key=lambda validation: validation.accuracy, default=None)


def out_of_patience(validations: Sequence[ValidationRecord], patience: int | None) -> bool:
    """Whether the last ``patience`` validations brought nothing better."""
    return patience is not None and len(validations) - 1 - _place(validations) >= patience


def _place(validations: Sequence[ValidationRecord]) -> int:
    return validations.index(best(validations)) if validations else -1
