"""Iterative magnitude pruning with rewinding."""

from __future__ import annotations

import copy
import tempfile
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from ..meta.checkpoint import CheckpointError
from ..nn.base import SparseLayer
from ..ticket import Ticket
from .cost import Cost, sample_flops, stopwatch
from .imp_state import ImpState
from .rewind import Snapshot
from .score_rounds import ScoreRounds, record
from .search import Finder, Found, Search, method
from .training import MetaRun


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
    check_search(model, search)
    rounds = ScoreRounds(score, default, search)
    with tempfile.TemporaryDirectory() as temporary:
        state = ImpState(search.state or Path(temporary))
        state.open({"score": score, "levels": rounds.levels, **identity(search)}, search.resume)
        check_beginning(model, state)
        while (done := len(state.records)) < len(rounds.levels):
            _round(copy.deepcopy(model), rounds, state, done)
        cost = sum(map(Cost.of, state.records), Cost())
        return Found(state.ticket(done), cost, state.records, state.store.load("theta_r"))


def check_search(model: nn.Module, search: Search) -> None:
    """Raise `ValueError` unless a search that trains can begin."""
    if search.run is None:
        raise ValueError("expected a training run for this search, got None; pass run=MetaRun(...), SupervisedRun(...)")
    if any(isinstance(layer, SparseLayer) for layer in model.modules()):
        raise ValueError("expected a dense model, got one with sparse layers; use densify(model)")
    if isinstance(search.run, MetaRun) and (beside := search.run.learned_beside(model)):
        config = search.run.config
        raise ValueError(
            f"expected a learner whose parameters are the model's, which a ticket can rewind; got one that also learns "
            f"{beside[0]}, algorithm={config.algorithm!r} with bn_mode={config.bn_mode!r}. Find the ticket with "
            f"algorithm='maml' and train it with this one, or take a score without a run"
        )


def check_length(search: Search, steps: int) -> None:
    """Raise `ValueError` where a search of so many steps would go on behind the end of the run's cosine."""
    if steps > search.run.steps and search.run.facts.get("schedule") == "cosine":
        raise ValueError(
            f"expected a search of at most {search.run.steps} steps, where the run's cosine ends, got one of up to "
            f"{steps}; take schedule='constant', or shorter rounds or levels"
        )


def check_beginning(model: nn.Module, state: ImpState) -> None:
    """The first weights are part of the search: others would give another ticket."""
    if "theta_0" not in state.store:
        return
    own, then = model.state_dict(), state.store.load("theta_0").model
    if own.keys() != then.keys() or any(not torch.equal(own[name].cpu(), then[name]) for name in own):
        raise CheckpointError(
            f"expected the model and first weights of the search in {state.folder}, got others; make the model as then"
        )


def identity(search: Search) -> dict:
    """What may not change when a search is resumed."""
    facts = {key: str(value) for key, value in search.laying.items()} | {"exclude": list(search.exclude)}
    return facts | {"rewind": search.rewind, "options": dict(search.options), "run": search.run.facts}


def _round(model: nn.Module, rounds: ScoreRounds, state: ImpState, number: int) -> None:
    """Train from step r to the end (the first round makes step r on its way), and prune."""
    search, ticket = rounds.search, state.ticket(number) if number else None
    _announce(search, number, ticket)
    per_step = search.run.passes * sample_flops(model, ticket, search.run.input_size)
    early = Cost() if number else _rewind_point(model, search, state)
    model, start = _rewound(model, ticket, state.store.load("theta_r"))
    checkpoint = state.training(f"round_{number + 1}")
    trained = search.run.run(model, search.run.steps, start, checkpoint, search.progress)
    elapsed = stopwatch()
    pruned = rounds.ticket(model, rounds.levels[number])
    steps = search.run.steps - (search.rewind if number else 0)
    cost = Cost(steps * per_step) + early + trained.cost
    state.add(pruned, {
        "round": number + 1, "trained_sparsity": ticket.sparsity if ticket else 0.0, "steps": steps,
        "training_seconds": cost.seconds, "loss": trained.loss, "accuracy": trained.accuracy,
        **record(pruned, cost + elapsed()),
    })  # fmt: skip


def _rewind_point(model: nn.Module, search: Search, state: ImpState) -> Cost:
    """Train to step r and keep theta_0 and theta_r; the seconds it took."""
    zero = Snapshot(0, copy.deepcopy(model.state_dict()))
    state.store.save("theta_0", zero)
    if not search.rewind:
        state.store.save("theta_r", zero)
        return Cost()
    early = search.run.run(model, search.rewind, checkpoint=state.training("rewind"), progress=search.progress)
    state.store.save("theta_r", early.snapshot)
    return early.cost


def _rewound(model: nn.Module, ticket: Ticket | None, start: Snapshot) -> tuple[nn.Module, Snapshot]:
    return start.sparse(model, ticket) if ticket else (start.dense(model), start)


def _announce(search: Search, number: int, ticket: Ticket | None) -> None:
    if search.progress:
        Console().print(f"round {number + 1}: training with {100 * (1 - ticket.sparsity if ticket else 1):.1f} % kept")
