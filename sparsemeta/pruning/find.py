"""Finding tickets: one door to every method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import sparsemeta

from ..ticket import Ticket
from .distributions import Distribution, ticket_from_scores
from .imp import imp_by
from .kinds import KindLike
from .probe import Probe
from .score_rounds import by_score
from .scores import SCORES
from .search import METHODS, Finder, Found, Search
from .training import TrainingRun
from .weights import prunable_layers, shape_of

TRAINED = ("magnitude", "taylor", "obs")  # scores of a trained network; the others are made for untrained ones


def find_ticket(
    method: str, model: nn.Module, *, sparsity: float | None = 0.8, distribution: Distribution = "global",
    kind: KindLike = "unstructured", keep_one: str = "layer", exclude: Sequence[str] = (), schedule: str | None = None,
    probe: Probe | None = None, run: TrainingRun | None = None, rewind: int | None = None,
    state: str | Path | None = None, resume: bool = False, progress: bool = True, seed: int = 0,
    provenance: Mapping[str, Any] | None = None, **options: Any,
) -> Found:
    """Find a ticket of `model`, which stays as it is.

    Args:
        method: `"imp"` and the other searches in `METHODS`, or a score in `SCORES`: the ticket of its highest values.
            `"magnitude"`, `"taylor"` and `"obs"` with a `run` train the model first.
        model: dense, untrained where the search trains it.
        sparsity, distribution, kind, keep_one: as in `ticket_from_scores`.
        exclude: weights or modules to leave dense, `"head.weight"` or `"head"`.
        schedule: a name in `SCHEDULES`; None for the method's own.
        probe: data for the scores that need some; None takes the first 8 batches of `run`.
        run: a `MetaRun` or `SupervisedRun`, for searches that train.
        rewind: steps of the training run to go back to; None for 5 % of it (Frankle et al. 2020, arXiv 1912.05671).
        state: folder for what the search needs to go on after an interruption; None for no such folder.
        resume: go on with the search in `state`.
        progress: show what happens.
        seed: of the search's own random choices.
        provenance: is added to the ticket's: method, arguments, cost and versions.
        options: of the method: `rounds`, `fraction`, `damping`, ...

    Raises:
        ValueError: an unknown method, or arguments that do not fit it or the model; nothing has been trained then.
        TicketError: provenance or options that JSON cannot hold; likewise.
        CheckpointError: `resume` from a folder of another search.
    """
    finder, exclude = _finder(method, run), (exclude,) if isinstance(exclude, str) else tuple(exclude)
    weights = prunable_layers(model, exclude)
    even = {name: torch.zeros(shape_of(layer)) for name, layer in weights.items()}
    ticket_from_scores(even, sparsity=sparsity, distribution=distribution, kind=kind, keep_one=keep_one)  # or raises
    if resume and state is None:
        raise ValueError("expected state to name a folder to resume from, got None")
    rewind = run.steps // 20 if rewind is None and run else rewind or 0
    if run and not 0 <= rewind < run.steps:
        raise ValueError(f"expected rewind from 0 to below the run's {run.steps} steps, got {rewind}")
    if probe is None and run is not None:
        probe = run.probe(8)
    search = Search(
        sparsity, distribution, kind, keep_one, exclude, schedule, probe, run, rewind, Path(state) if state else None,
        resume, progress, seed, options,
    )  # fmt: skip  one name a line would be longer than the rest
    facts = {"method": method, **_facts(search), **_versions(), **(provenance or {})}
    Ticket({}, facts)  # says now, and not after training, what JSON cannot hold
    found = finder(model, search)
    facts = {**found.ticket.provenance, **facts, "cost": vars(found.cost)}
    return replace(found, ticket=Ticket(found.ticket, facts))


def _finder(method: str, run: TrainingRun | None) -> Finder:
    if method in METHODS and (run or method not in SCORES):
        return METHODS[method]
    if method not in SCORES:
        raise ValueError(f"expected method to be one of {', '.join(METHODS | SCORES)}, got {method!r}")
    return imp_by(method) if run and method in TRAINED else by_score(method)


def _facts(search: Search) -> dict[str, Any]:
    facts = {"asked_sparsity": search.sparsity, "seed": search.seed, "rewind": search.rewind, **search.options}
    facts |= {key: str(value) for key, value in search.laying.items()}
    facts |= {"run": search.run.facts} if search.run else {}
    return facts | ({"schedule": search.schedule} if search.schedule else {})


def _versions() -> dict[str, str]:
    return {"sparsemeta": sparsemeta.__version__, "torch": torch.__version__}
