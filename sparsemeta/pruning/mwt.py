"""Meta winning tickets by a light search, which prunes as soon as the pattern to keep has stopped moving."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from ..ticket import Ticket
from .cost import Cost, sample_flops, stopwatch
from .imp import check_beginning, check_length, check_search, identity
from .imp_state import ImpState
from .mwt_carry import densified, first_order
from .mwt_detection import Detector, Distances, Level, distances, kept_fraction
from .rewind import Snapshot
from .score_rounds import ScoreRounds
from .search import Found, Search, method
from .training import Trained


@method("mwt")
def mwt(model: nn.Module, search: Search) -> Found:
    """Light search for a meta winning ticket (Gao et al., *Finding Meta Winning Ticket to Train Your MAML*, KDD 2022).

    A reconstruction from the abstract. Levels of .8^j down to the target; inside a level, every `every` steps, the
    largest weights of the whole network that the level would keep (at least one of each output unit), until their
    inter-layer and intra-layer patterns have stopped moving or the level's cap is reached; then the others are pruned,
    and training goes on with the weights and moments that stay, in sparse layers from the first pruning on. Meta-
    gradients are of first order. At the end the ticket is rewound once, to step `search.rewind` of the run.

    Options: those of `Detector`; by default a level's cap is an eighth of the run's steps. `light_order`, 1, or 2 for
    the run's own meta-gradients, where a short search learns too little with the first order. `search.keep_one` is
    `"unit"` whatever it says.

    Its trace has a record for each check: level, step, the ticket's kept weights and fractions, both distances, why the
    level is over, loss, accuracy, FLOPs and seconds.
    """
    check_search(model, search)
    own = {field.name: search.options[field.name] for field in fields(Detector) if field.name in search.options}
    every = own.get("every", Detector.every)
    detector = Detector(**{"cap": max(search.run.steps // 8, every), **own})
    if (order := search.options.get("light_order", 1)) not in (1, 2):
        raise ValueError(f"expected light_order, that of the search's meta-gradients, to be 1 or 2; got {order!r}")
    others = {key: value for key, value in search.options.items() if key not in (*own, "light_order")}
    rounds = ScoreRounds("magnitude", "iterative", replace(search, keep_one="unit", options=others))
    check_length(search, search.rewind + len(rounds.levels) * detector.cap)
    with tempfile.TemporaryDirectory() as temporary:
        state = ImpState(search.state or Path(temporary))
        settings = {"method": "mwt", "levels": rounds.levels, "detector": vars(detector), **identity(search)}
        state.open(settings, search.resume)
        check_beginning(model, state)
        return LightSearch(model, rounds, detector, state, order).found()


class LightSearch:
    """A light search with its state folder. A record counts once it stands there, so the search goes on from checks."""

    def __init__(self, model: nn.Module, rounds: ScoreRounds, detector: Detector, state: ImpState, order: int):
        self.model, self.rounds, self.detector, self.state, self.order = model, rounds, detector, state, order
        self.run = rounds.search.run

    def found(self) -> Found:
        """Search, or go on with it, to the end."""
        begin, cost = self._rewind_point()
        while (level := self._level()).number < len(self.rounds.levels):
            self._check(level, begin)
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

    def _check(self, level: Level, begin: Snapshot) -> None:
        """Train to the next check, and make it."""
        number, steps = len(self.state.records) + 1, level.next_check(self.detector)
        current = self._current()
        start = self.state.store.load(f"check_{number - 1}") if number > 1 else begin
        trained, network, flops = self._train(current, start, steps, self.state.training(f"segment_{number}"))
        elapsed = stopwatch()
        ticket = self.rounds.ticket(network, self.rounds.levels[level.number])
        moved = distances(ticket, self.state.ticket(number - 1)) if level.steps else None
        level = level.checked(self.detector, steps, moved)
        self.state.store.save(f"check_{number}", densified(trained.snapshot, network, current))
        cost = {"training_seconds": trained.cost.seconds, **vars(Cost(flops) + trained.cost + elapsed())}
        self.state.add(ticket, self._record(level, current, ticket, moved) | scalars(trained) | cost)
        announce(self.state.records[-1], self.rounds.search.progress)
        for name in (f"segment_{number}", f"check_{number - 1}"):
            self.state.training(name).unlink(missing_ok=True)

    def _train(
        self, current: Ticket | None, start: Snapshot, steps: int, checkpoint: Path
    ) -> tuple[Trained, nn.Module, float]:
        """Train on from `start`: what came of it, the trained network, and the FLOPs."""
        run, start = first_order(self.run, start) if self.order == 1 else (self.run, start)
        model = copy.deepcopy(self.model)
        model, start = start.sparse(model, current) if current else (start.dense(model), start)
        trained = run.run(model, start.step + steps, start, checkpoint)
        return trained, model, steps * run.passes * sample_flops(self.model, current, run.input_size)

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

    def _current(self) -> Ticket | None:
        """What the network consists of now: the pattern at the end of the level before; None while it is dense."""
        ends = [number for number, record in enumerate(self.state.records, 1) if record["over"]]
        return self.state.ticket(ends[-1]) if ends else None


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
