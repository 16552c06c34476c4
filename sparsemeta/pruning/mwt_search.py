"""The light search itself: from check to check, with one network for each level."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from ..nn import sparsify
from ..ticket import Ticket
from .cost import Cost, sample_flops, stopwatch
from .imp_state import ImpState
from .mwt_carry import densified, first_order
from .mwt_detection import Detector, Distances, Level, distances, kept_fraction
from .rewind import Snapshot
from .score_rounds import ScoreRounds
from .search import Found
from .training import Trained


@dataclass(frozen=True)
class Place:
    """Where a light search stands: the network, kept from check to check with what was derived from its patterns.

    Attributes:
        ticket: of the network; None while it is dense.
        network: in the state of `snapshot`.
        snapshot: where its training goes on.
    """

    ticket: Ticket | None
    network: nn.Module
    snapshot: Snapshot


class LightSearch:
    """A light search with its state folder. A record counts once it stands there, so the search goes on from checks."""

    def __init__(self, model: nn.Module, rounds: ScoreRounds, detector: Detector, state: ImpState, order: int):
        self.model, self.rounds, self.detector, self.state, self.order = model, rounds, detector, state, order
        self.run = rounds.search.run

    def found(self) -> Found:
        """Search, or go on with it, to the end."""
        begin, cost = self._rewind_point()
        place = self._place(begin)
        while (level := self._level()).number < len(self.rounds.levels):
            place = self._check(level, place)
        cost = sum(map(Cost.of, self.state.records), cost)
        return Found(self.state.ticket(len(self.state.records)), cost, self.state.records, begin)

    def _rewind_point(self) -> tuple[Snapshot, Cost]:
        """theta_r, where the search and then the ticket start: that many steps of the run itself."""
        steps, progress = self.rounds.search.rewind, self.rounds.search.progress
        zero = Snapshot(0, copy.deepcopy(self.model.state_dict()))
        self.state.store.save("theta_0", zero)
        if not steps:
            return zero, Cost()
        checkpoint = self.state.training("theta_r")  # when it is there whole, nothing is trained again
        trained = self.run.run(copy.deepcopy(self.model), steps, None, checkpoint, progress)
        flops = steps * self.run.passes * sample_flops(self.model, None, self.run.input_size)
        return trained.snapshot, Cost(flops) + trained.cost

    def _place(self, begin: Snapshot) -> Place:
        """Where the search stands by its folder."""
        records, network = self.state.records, copy.deepcopy(self.model)
        if not records:
            return Place(None, begin.dense(network), begin)
        ends = [number for number, record in enumerate(records[:-1], 1) if record["over"]]
        ticket = self.state.ticket(ends[-1]) if ends else None
        snapshot = self.state.store.load(f"check_{len(records)}")
        return self._next(Place(ticket, snapshot.dense(sparsify(network, ticket) if ticket else network), snapshot))

    def _next(self, place: Place) -> Place:
        """After a check: the smaller network where it ended a level, else the same."""
        if not self.state.records[-1]["over"]:
            return place
        ticket = self.state.ticket(len(self.state.records))
        dense = densified(place.snapshot, place.network, place.ticket)
        return Place(ticket, *dense.sparse(copy.deepcopy(self.model), ticket))

    def _check(self, level: Level, place: Place) -> Place:
        """Train to the next check, and make it."""
        number, steps = len(self.state.records) + 1, level.next_check(self.detector)
        trained, flops = self._train(place, steps, self.state.training(f"segment_{number}"))
        elapsed = stopwatch()
        ticket = self.rounds.ticket(place.network, self.rounds.levels[level.number])
        moved = distances(ticket, self.state.ticket(number - 1)) if level.steps else None
        cost = {"training_seconds": trained.cost.seconds, **vars(Cost(flops) + trained.cost + elapsed())}
        level = level.checked(self.detector, steps, moved)
        self.state.store.save(f"check_{number}", trained.snapshot)
        self.state.add(ticket, self._record(level, place.ticket, ticket, moved) | scalars(trained) | cost)
        announce(self.state.records[-1], self.rounds.search.progress)
        for name in (f"segment_{number}", f"check_{number - 1}"):
            self.state.training(name).unlink(missing_ok=True)
        return self._next(replace(place, snapshot=trained.snapshot))

    def _train(self, place: Place, steps: int, checkpoint: Path) -> tuple[Trained, float]:
        """Train the network on: what came of it, and the FLOPs."""
        run, start = first_order(self.run, place.snapshot) if self.order == 1 else (self.run, place.snapshot)
        trained = run.run(place.network, start.step + steps, start, checkpoint)
        return trained, steps * run.passes * sample_flops(self.model, place.ticket, run.input_size)

    def _record(self, level: Level, current: Ticket | None, ticket: Ticket, moved: Distances | None) -> dict[str, Any]:
        where = {"level": level.number + 1, "level_steps": level.steps, "calm": level.calm}
        how_far = {"inter": moved and moved.inter, "intra": moved and moved.intra, "over": level.over(self.detector)}
        kept = {"sparsity": ticket.sparsity, "kept": ticket.kept, "fractions": kept_fraction(ticket)}
        return where | how_far | kept | {"trained_sparsity": current.sparsity if current else 0.0}

    def _level(self) -> Level:
        """Where the search is, from its records."""
        if not (records := self.state.records):
            return Level()
        last = records[-1]
        return Level(last["level"]) if last["over"] else Level(last["level"] - 1, last["level_steps"], last["calm"])


def scalars(trained: Trained) -> dict[str, float]:
    """What a trace says about training."""
    return {"step": trained.snapshot.step, "loss": trained.loss, "accuracy": trained.accuracy}


def announce(record: Mapping[str, Any], progress: bool) -> None:
    """One line for a check."""
    if progress:
        first = record["inter"] is None
        moved = "first check" if first else f"moved {record['inter']:.4f} among layers, {record['intra']:.4f} inside"
        where = f"level {record['level']}, {1 - record['sparsity']:.1%} to keep, {record['level_steps']} steps"
        end = f" -> {record['over']}" if record["over"] else ""
        Console().print(f"{where}: {moved}{end}", soft_wrap=True)
