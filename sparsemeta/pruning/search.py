"""What every search for a ticket is asked, and what it answers; the registry of methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from ..ticket import Ticket
from .cost import Cost
from .distributions import Distribution
from .kinds import KindLike
from .probe import Probe
from .rewind import Snapshot
from .training import TrainingRun


@dataclass(frozen=True)
class Search:
    """A search for a ticket. Arguments as in `find_ticket`."""

    sparsity: float | None = 0.8
    distribution: Distribution = "global"
    kind: KindLike = "unstructured"
    keep_one: str = "layer"
    exclude: Sequence[str] = ()
    schedule: str | None = None
    probe: Probe | None = None
    run: TrainingRun | None = None
    rewind: int = 0
    state: Path | None = None
    resume: bool = False
    progress: bool = True
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def laying(self) -> dict[str, Any]:
        """How scores become a ticket, for `ticket_from_scores`; the sparsity comes from the schedule."""
        return {"distribution": self.distribution, "kind": self.kind, "keep_one": self.keep_one}


@dataclass(frozen=True)
class Found:
    """A ticket, and what it took to find it.

    Attributes:
        ticket: with its provenance.
        cost: FLOPs of all training, and measured seconds of the whole search, those before a resume included.
        trace: a record of what JSON can hold for each round or check.
        rewind: the state to train the ticket from, `found.rewind.sparse(model, found.ticket)`; None where the search
            trained nothing: the ticket is one of the model's own weights.
    """

    ticket: Ticket
    cost: Cost = Cost()
    trace: Sequence[Mapping[str, Any]] = ()
    rewind: Snapshot | None = None


Finder = Callable[[nn.Module, Search], Found]
METHODS: dict[str, Finder] = {}


def method(name: str) -> Callable[[Finder], Finder]:
    """Register a search `(model, search) -> Found` under `name`. It leaves the model as it is."""

    def register(finder: Finder) -> Finder:
        METHODS[name] = finder
        return finder

    return register
