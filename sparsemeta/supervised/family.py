"""E-LTH on a family of CIFAR ResNets: tickets stretched and squeezed, against the target's own and controls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data import ImageClasses
from ..meta.checkpoint import load_checkpoint
from ..meta.seeds import seeded
from ..models import ResNetCifar
from ..pruning.cost import Cost, sample_flops
from ..pruning.elastic_controls import control
from ..pruning.elastic_transfer import transfer
from ..pruning.find import find_ticket
from ..pruning.rewind import Snapshot
from ..pruning.search import Found
from ..pruning.supervised import SupervisedRun
from ..ticket import Ticket
from .experiment_config import Family
from .images import accuracy, flip_and_crop, held_out
from .records import Record, Records

PROBE_BATCHES = 8


class FamilyRun:
    """One repetition, with everything that it needs to go on in `folder`.

    Args:
        config: of the experiment.
        classes: images, of which the first `config.classes` classes are used; on the device that computes.
        records: where results go.
        seed: of this repetition.
    """

    def __init__(self, config: Family, classes: ImageClasses, records: Records, seed: int):
        self.config, self.records, self.seed = config, records, seed
        self.folder: Path = records.folder / f"family_{seed}"
        self.known = min(config.classes, len(classes))
        (images, labels), self.test = held_out(classes.subset(range(self.known)), config.held_out)
        self.size = tuple(images.shape[1:])
        self.run = SupervisedRun(
            images, labels, config.steps, config.batch, config.lr, config.momentum, config.weight_decay,
            config.milestones, augment=flip_and_crop, seed=seed,
        )  # fmt: skip  one name a line would be longer than the rest
        self.found = cache(self._find)  # asks the disk once

    def __call__(self) -> Iterator[Record]:
        """Every record, made or found."""
        shallow, deep = self.config.depths
        for source, target, name in ((shallow, deep, "stretched"), (deep, shallow, "squeezed")):
            yield self._once(target, "dense", lambda depth=target: self._dense(depth))
            yield self._once(target, "own", lambda depth=target: self._own(depth))
            yield self._once(target, name, lambda pair=(source, target, name): self._elastic(*pair))
            for kind in self.config.controls:
                yield self._once(target, kind, lambda of=(source, target, name, kind): self._control(*of))

    def _once(self, depth: int, kind: str, make: Any) -> Record:
        fixed = {"part": "family", "depth": depth, "kind": kind, "seed": self.seed}
        return self.records.once(f"family seed {self.seed} ResNet-{depth} {kind}", lambda: {**fixed, **make()})

    def _model(self, depth: int) -> nn.Module:
        with seeded(self.seed, torch.device("cpu")):
            model = ResNetCifar(depth, self.known, self.size[0], self.config.widths, self.size[1:])
        return model.to(self.run.images.device)

    def _find(self, depth: int) -> Found:
        state, rounds = self.folder / f"imp_{depth}", self.config.rounds
        return find_ticket(
            "imp", self._model(depth), sparsity=1 - 0.8**rounds, run=self.run, rewind=self.config.rewind, rounds=rounds,
            state=state, resume=(state / "state.json").exists(), seed=self.seed,
        )  # fmt: skip  one argument a line would be longer than the rest

    def _dense(self, depth: int) -> Record:
        """The end of the search's first round."""
        found, model = self.found(depth), self._model(depth)
        model.load_state_dict(load_checkpoint(self.folder / f"imp_{depth}" / "round_1.safetensors")["model"])
        return self._judged(depth, model, None, Cost.of(found.trace[0]), self.config.steps)

    def _own(self, depth: int) -> Record:
        found = self.found(depth)
        return self._trained(depth, "own", found.rewind.dense(self._model(depth)), found.ticket, found)

    def _elastic(self, source: int, target: int, name: str) -> Record:
        return self._trained(target, name, *self._transferred(source, target, name), self.found(source))

    def _control(self, source: int, target: int, name: str, kind: str) -> Record:
        probe = self.run.probe(PROBE_BATCHES)
        model, ticket = control(kind, *self._transferred(source, target, name), probe, self.seed)
        searched = self.found(source) if kind in ("reinitialised", "random") else None  # those need its ticket
        return self._trained(target, kind, model, ticket, searched)

    def _transferred(self, source: int, target: int, name: str) -> tuple[nn.Module, Ticket]:
        found, order = self.found(source), self.config.stretch if name == "stretched" else self.config.squeeze
        return transfer(found.rewind.dense(self._model(source)), found.ticket, self._model(target), order=order)

    def _trained(self, depth: int, kind: str, model: nn.Module, ticket: Ticket, searched: Found | None) -> Record:
        """From step r on, all with fresh momentum: a network of another depth has none to go on with."""
        extra = self.found(depth).rewind.extra  # losses of the steps before r: only their number counts
        start = Snapshot(self.config.rewind, model.state_dict(), None, extra)
        sparse, start = start.sparse(model, ticket)
        checkpoint = self.folder / f"{kind}_{depth}.safetensors"
        ticket.save(self.folder / f"{kind}_{depth}_ticket.safetensors")
        trained = self.run.run(sparse, self.run.steps, start, checkpoint, progress=True)
        steps = self.config.steps - self.config.rewind
        return self._judged(depth, sparse, ticket, trained.cost, steps, searched)

    def _judged(
        self, depth: int, model: nn.Module, ticket: Ticket | None, training: Cost, steps: int,
        searched: Found | None = None,
    ) -> Record:
        search = searched.cost if searched else Cost()
        flops = steps * self.run.passes * sample_flops(self._model(depth), ticket, self.size)
        costs = {"search": search, "training": replace(training, flops=flops)}
        return {
            "accuracy": accuracy(model, *self.test), "test_images": len(self.test[1]),
            "sparsity": ticket.sparsity if ticket else 0.0,
            **{f"{part}_{unit}": value for part, cost in costs.items() for unit, value in vars(cost).items()},
        }  # fmt: skip  what belongs together in a line
