"""Tickets by a score on the model as it is, in one round or many."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from rich.progress import track
from torch import nn

from ..nn import densify, sparsify
from ..nn.base import SparseLayer
from ..ticket import Ticket
from .cost import Cost
from .distributions import ticket_from_scores
from .kinds import Kind
from .schedules import schedule
from .scores import SCORES
from .search import Finder, Found, Search


def by_score(name: str) -> Finder:
    """The search that keeps the highest values of a score."""
    return partial(_found, name)


def next_ticket(score: str, model: nn.Module, search: Search, level: float | None) -> Ticket:
    """Ticket of a model, dense or sparse, at the sparsity `level` of the search."""
    own = {"seed": search.seed} if score == "random" else {}
    options = {key: value for key, value in search.options.items() if key not in ROUND_OPTIONS}
    scores = SCORES[score](model, search.probe, search.exclude, **own, **options)
    return ticket_from_scores(scores, sparsity=level, **search.laying)


ROUND_OPTIONS = ("rounds", "fraction", "start")  # of schedules; what else there is belongs to the score


def levels(search: Search, default: str) -> tuple[float | None, ...]:
    """The sparsities of the search's rounds, from the least that its kind allows on.

    One round where the distribution says them by layer.
    """
    if search.sparsity is None:
        return (None,)
    options = {key: value for key, value in search.options.items() if key in ROUND_OPTIONS}
    kinds = search.kind.values() if isinstance(search.kind, Mapping) else [search.kind]
    least = max((Kind.parse(kind).least_sparsity for kind in kinds), default=0.0)
    return tuple(s for s in schedule(search.schedule or default, search.sparsity, **options) if s >= least - 1e-9)


def record(ticket: Ticket, seconds: float) -> dict[str, Any]:
    """What a trace says about a round."""
    return {"sparsity": ticket.sparsity, "kept": ticket.kept, "seconds": seconds}


def _found(score: str, model: nn.Module, search: Search) -> Found:
    begin, trace = time.perf_counter(), []
    sparse = any(isinstance(layer, SparseLayer) for layer in model.modules())
    current, dense = model, densify(model) if sparse else model
    rounds = levels(search, "exponential" if score == "synflow" else "one-shot")
    for level in track(rounds, f"{score}: rounds", disable=not search.progress):
        ticket = next_ticket(score, current, search, level)
        trace.append(record(ticket, time.perf_counter() - begin))
        current = sparsify(dense, ticket)
    return Found(ticket, Cost(0.0, time.perf_counter() - begin), trace)
