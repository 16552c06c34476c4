"""Tickets by a score, in one round or many."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from rich.progress import track
from torch import nn

from ..nn import densify, sparsify
from ..nn.base import SparseLayer
from ..ticket import Ticket
from .cost import Cost, stopwatch
from .distributions import ticket_from_scores
from .kinds import Kind
from .schedules import SCHEDULES, schedule
from .scores import SCORES
from .search import Finder, Found, Search


class ScoreRounds:
    """The rounds of a search that prunes by a score.

    Attributes:
        levels: the sparsity after each round; None where the search's distribution says it by layer, in one round.

    Raises:
        ValueError: an unknown schedule, or options that neither score nor schedule takes.
    """

    def __init__(self, score: str, default_schedule: str, search: Search):
        self.score, self.search = score, search
        name = search.schedule or default_schedule
        takes = options_of(SCORES[score], 3), options_of(SCHEDULES.get(name), 1)
        if unknown := sorted(search.options.keys() - takes[0] - takes[1]):
            raise ValueError(f"expected options among {sorted(takes[0] | takes[1])} for {score!r}, got {unknown}")
        self.options, in_rounds = ({k: v for k, v in search.options.items() if k in names} for names in takes)
        if "seed" in takes[0]:
            self.options.setdefault("seed", search.seed)
        levels = (None,) if search.sparsity is None else schedule(name, search.sparsity, **in_rounds)
        self.levels = tuple(level for level in levels if level is None or level >= _least(search) - 1e-9)

    def ticket(self, model: nn.Module, level: float | None) -> Ticket:
        """Ticket of a model, dense or sparse, at one of the levels."""
        scores = SCORES[self.score](model, self.search.probe, self.search.exclude, **self.options)
        return ticket_from_scores(scores, sparsity=level, **self.search.laying)


def by_score(name: str) -> Finder:
    """The search that keeps the highest values of a score of the model as it is."""
    return partial(_search, name)


def options_of(function: Callable | None, skip: int) -> set[str]:
    """Names of a function's arguments after the first `skip`."""
    return set(list(inspect.signature(function).parameters)[skip:]) if function else set()


def record(ticket: Ticket, cost: Cost) -> dict[str, Any]:
    """What a trace says about a round."""
    return {"sparsity": ticket.sparsity, "kept": ticket.kept, **vars(cost)}


def _search(score: str, model: nn.Module, search: Search) -> Found:
    rounds, trace = ScoreRounds(score, "exponential" if score == "synflow" else "one-shot", search), []
    sparse = any(isinstance(layer, SparseLayer) for layer in model.modules())
    current, dense = model, densify(model) if sparse else model
    for number, level in enumerate(track(rounds.levels, f"{score}: rounds", disable=not search.progress), 1):
        elapsed = stopwatch()
        ticket = rounds.ticket(current, level)
        trace.append({"round": number, **record(ticket, elapsed())})
        current = sparsify(dense, ticket)
    return Found(ticket, sum(map(Cost.of, trace), Cost()), trace)


def _least(search: Search) -> float:
    """The least sparsity that the search's kind allows: levels below it have no ticket."""
    kinds = search.kind.values() if isinstance(search.kind, Mapping) else [search.kind]
    return max((Kind.parse(kind).least_sparsity for kind in kinds), default=0.0)
