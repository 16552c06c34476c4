"""Block shapes side by side: few-shot accuracy of a ticket, and the seconds of its meta-step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property

import torch
from torch import nn

from ..data import ImageClasses, Splits, TaskSampler
from ..demo.figures import speed
from ..demo.settings import KEPT_DENSE
from ..demo.timing import DENSE, UNPRUNED
from ..meta import evaluate
from ..meta.seeds import seeded
from ..models import Conv4
from ..pruning.block_tickets import BlockTicket, block_ticket
from ..pruning.kinds import Kind
from ..pruning.rewind import Snapshot
from ..pruning.training import MetaRun
from .block_timing import time_all
from .experiment_config import Blocks
from .records import Record, Records


class BlockShapesRun:
    """One repetition on CIFAR-FS, with everything that it needs to go on in the records' folder.

    Args:
        config: of the experiment.
        splits: classes to train on, and those that judge; on the device that computes.
        records: where results go.
        seed: of this repetition.
    """

    def __init__(self, config: Blocks, splits: Splits, records: Records, seed: int):
        self.config, self.splits, self.records, self.seed = config, splits, records, seed
        self.folder, self.train = records.folder / f"blocks_{seed}", config.config(seed)
        self.run = MetaRun(self._tasks(splits.train), self.train)
        self.trained = cache(self._trained)  # asks the disk once

    def __call__(self) -> Iterator[Record]:
        """Every record, made or found."""
        yield self._once("dense", lambda: {"sparsity": 0.0, **self._accuracy(self.dense)})
        for ticket in self.tickets:
            yield self._once(ticket.name, lambda ticket=ticket: self._judged(ticket))

    @cached_property
    def tickets(self) -> list[Asked]:
        """What the configuration asks for."""
        return [
            Asked(sparsity, shape, permuted)
            for sparsity in self.config.sparsities for shape in self.config.shapes
            for permuted in (False, True)[: 1 if shape == "1x1" else 2]
        ]  # fmt: skip  one clause a line would hide what they are

    @cached_property
    def early(self) -> Snapshot:
        """Dense, after the meta-steps from which the tickets start."""
        return self._run("early", self._model(), self.config.rewind)

    @cached_property
    def dense(self) -> nn.Module:
        """Dense, at the end."""
        model = self.early.dense(self._model())
        self._run("dense", model, self.train.steps, self.early)
        return model

    def _once(self, kind: str, make: Callable[[], Record]) -> Record:
        fixed = {"part": "blocks", "kind": kind, "seed": self.seed}
        return self.records.once(f"blocks seed {self.seed} {kind}", lambda: {**fixed, **make()})

    def _judged(self, asked: Asked) -> Record:
        found, model = self.trained(asked)
        facts = {"sparsity": found.ticket.sparsity, "magnitude": found.magnitude}
        return vars(asked) | facts | self._accuracy(model) | self._speed(asked)

    def _trained(self, asked: Asked) -> tuple[BlockTicket, nn.Module]:
        found = block_ticket(
            self.dense, Kind.parse(asked.shape).size, self.splits.train.image_shape, sparsity=asked.asked,
            exclude=KEPT_DENSE, permute=asked.permuted, proposals=self.config.proposals, seed=self.seed,
        )  # fmt: skip  one argument a line would be longer than the rest
        model, start = found.sparse(self._model(), self.early)
        self._run(asked.name, model, self.train.steps, start)
        return found, model

    def _accuracy(self, model: nn.Module) -> Record:
        found = evaluate(model, self._tasks(self.splits.test), self.train, self.config.tasks)
        return {"accuracy": found.accuracy, "interval": found.interval, "tasks": found.tasks}

    def _speed(self, asked: Asked) -> Record:
        """Of a ticket, beside all others: they are timed together, once all of them are trained."""
        seconds = self.records.once(f"blocks seed {self.seed} seconds", self._seconds)
        flops = self.trained(asked)[0].ticket.flops(self._model(), self.splits.train.image_shape)
        return speed({**{way: seconds[way] for way in (*DENSE, UNPRUNED)}, "sparse": seconds[asked.name]}, flops)

    def _seconds(self) -> Record:
        sparse = {asked.name: self.trained(asked)[1] for asked in self.tickets}
        return time_all(self.dense, sparse, self._tasks(self.splits.train), self.train, self.config.timed)

    def _run(self, name: str, model: nn.Module, steps: int, start: Snapshot | None = None) -> Snapshot:
        """To the end, from where its checkpoint is if there is one."""
        return self.run.run(model, steps, start, self.folder / f"{name}.safetensors", progress=True).snapshot

    def _model(self) -> nn.Module:
        channels, *size = self.splits.train.image_shape
        with seeded(self.seed, torch.device("cpu")):
            model = Conv4(self.train.ways, channels, self.config.hidden, size)
        return model.to(self.splits.train.images.device)

    def _tasks(self, classes: ImageClasses) -> TaskSampler:
        return TaskSampler(classes, self.train.ways, self.train.shots, self.train.queries, self.seed)


@dataclass(frozen=True)
class Asked:
    """A ticket that the configuration asks for."""

    asked: float
    shape: str
    permuted: bool

    @property
    def name(self) -> str:
        return f"{self.shape}{' permuted' * self.permuted} at {self.asked:g}"
