"""Iterative magnitude pruning with rewinding."""

from __future__ import annotations

import copy
import tempfile
import time
from functools import partial
from pathlib import Path

from rich.console import Console
from torch import nn

from ..ticket import Ticket
from .cost import Cost, sample_flops
from .imp_state import ImpState
from .rewind import Snapshot
from .score_rounds import levels, next_ticket, record
from .search import Finder, Found, Search, method


def imp_by(score: str) -> Finder:
    """The search that trains, prunes the lowest of a score, rewinds, and does so again: one-shot by default."""
    return partial(_search, score, "one-shot")


@method("imp")
def imp(model: nn.Module, search: Search) -> Found:
    """Train to the end, prune 20 % of the remaining weights by magnitude, rewind to step r, train again, ...

    Frankle and Carbin 2019 (arXiv 1803.03635); rewinding to step r and going on with the schedule there: Frankle et al.
    2020 (arXiv 1912.05671). Pruned networks train with sparse layers from the first pruning on. The ticket of the last
    round is not trained.
    """
    return _search("magnitude", "iterative", model, search)


def _search(score: str, default: str, model: nn.Module, search: Search) -> Found:
    if search.run is None:
        raise ValueError("expected a training run for this search, got None; pass run=MetaRun(...), SupervisedRun(...)")
    rounds = levels(search, default)
    with tempfile.TemporaryDirectory() as temporary:
        state = ImpState(search.state or Path(temporary))
        state.open({"score": score, "levels": list(rounds), **_identity(search)}, search.resume)
        for number in range(len(state.records), len(rounds)):
            _round(score, copy.deepcopy(model), search, state, number, rounds[number])
        cost = sum((Cost(r["flops"], r["seconds"]) for r in state.records), Cost())
        return Found(state.ticket(len(rounds)), cost, state.records, state.store.load("theta_r"))


def _identity(search: Search) -> dict:
    """What may not change when a search is resumed."""
    facts = {key: str(value) for key, value in search.laying.items()} | {"exclude": list(search.exclude)}
    return facts | {"rewind": search.rewind, "steps": search.run.steps, "options": dict(search.options)}


def _round(score: str, model: nn.Module, search: Search, state: ImpState, number: int, level: float | None) -> None:
    """Train from step r to the end (the first round makes step r on its way), and prune."""
    ticket = state.ticket(number) if number else None
    _announce(search, number, ticket)
    per_step = search.run.passes * sample_flops(model, ticket, search.run.input_size)
    early = 0.0 if number else _rewind_point(model, search, state)
    model, start = _rewound(model, ticket, state.store.load("theta_r"))
    checkpoint = state.training(f"round_{number + 1}")
    trained = search.run.run(model, search.run.steps, start, checkpoint, search.progress)
    begin = time.perf_counter()
    pruned = next_ticket(score, model, search, level)
    training, pruning = early + trained.seconds, time.perf_counter() - begin
    steps = search.run.steps - (search.rewind if number else 0)
    state.add(pruned, {
        "round": number + 1, "trained_sparsity": ticket.sparsity if ticket else 0.0, "steps": steps,
        "flops": steps * per_step, "training_seconds": training, "loss": trained.loss, "accuracy": trained.accuracy,
        **record(pruned, training + pruning),
    })  # fmt: skip


def _rewind_point(model: nn.Module, search: Search, state: ImpState) -> float:
    """Train to step r and keep theta_0 and theta_r; the seconds it took."""
    zero = Snapshot(0, copy.deepcopy(model.state_dict()))
    state.store.save("theta_0", zero)
    if not search.rewind:
        state.store.save("theta_r", zero)
        return 0.0
    early = search.run.run(model, search.rewind, checkpoint=state.training("rewind"), progress=search.progress)
    state.store.save("theta_r", early.snapshot)
    return early.seconds


def _rewound(model: nn.Module, ticket: Ticket | None, start: Snapshot) -> tuple[nn.Module, Snapshot]:
    return start.sparse(model, ticket) if ticket else (start.dense(model), start)


def _announce(search: Search, number: int, ticket: Ticket | None) -> None:
    if search.progress:
        Console().print(f"round {number + 1}: training with {100 * (1 - ticket.sparsity if ticket else 1):.1f} % kept")
