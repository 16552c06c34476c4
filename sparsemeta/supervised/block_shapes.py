"""Block shapes side by side: few-shot accuracy of a ticket, and the seconds of its meta-step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from ..data import ImageClasses, Splits, TaskSampler
from ..demo.figures import speed
from ..demo.settings import KEPT_DENSE
from ..demo.timing import WARM_UP, time_meta_steps
from ..meta import TrainConfig, evaluate
from ..meta.seeds import seeded
from ..models import Conv4
from ..pruning.block_tickets import block_ticket
from ..pruning.kinds import Kind
from ..pruning.rewind import Snapshot
from ..pruning.training import MetaRun
from ..ticket import Ticket
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

    def __call__(self) -> Iterator[Record]:
        """Every record, made or found."""
        yield self._once("dense", {}, lambda: {"sparsity": 0.0, **self._accuracy(self.dense)})
        for sparsity in self.config.sparsities:
            for shape in self.config.shapes:
                for permuted in (False, True)[: 1 if shape == "1x1" else 2]:
                    facts = {"asked": sparsity, "shape": shape, "permuted": permuted}
                    name = f"{shape}{' permuted' * permuted} at {sparsity:g}"
                    yield self._once(name, facts, lambda facts=facts: self._ticket(**facts))

    @cached_property
    def early(self) -> Snapshot:
        """Dense, after the meta-steps from which the tickets start."""
        return self._trained("early", self._model(), self.config.rewind)

    @cached_property
    def dense(self) -> nn.Module:
        """Dense, at the end."""
        model = self.early.dense(self._model())
        self._trained("dense", model, self.train.steps, self.early)
        return model

    def _once(self, kind: str, facts: Mapping[str, Any], make: Any) -> Record:
        fixed = {"part": "blocks", "kind": kind, "seed": self.seed, **facts}
        return self.records.once(f"blocks seed {self.seed} {kind}", lambda: {**fixed, **make()})

    def _ticket(self, asked: float, shape: str, permuted: bool) -> Record:
        found = block_ticket(
            self.dense, Kind.parse(shape).size, self.splits.train.image_shape, sparsity=asked,
            exclude=KEPT_DENSE, permute=permuted, proposals=self.config.proposals, seed=self.seed,
        )  # fmt: skip  one argument a line would be longer than the rest
        model, start = found.sparse(self._model(), self.early)
        self._trained(f"{shape}_{asked:g}{'_permuted' * permuted}", model, self.train.steps, start)
        facts = {"sparsity": found.ticket.sparsity, "magnitude": found.magnitude}
        return facts | self._accuracy(model) | self._speed(model, found.ticket)

    def _accuracy(self, model: nn.Module) -> Record:
        found = evaluate(model, self._tasks(self.splits.test), self.train, self.config.tasks)
        return {"accuracy": found.accuracy, "interval": found.interval, "tasks": found.tasks}

    def _speed(self, sparse: nn.Module, ticket: Ticket) -> Record:
        rounds, sampler = range(self.config.timed + WARM_UP), self._tasks(self.splits.train)
        seconds = time_meta_steps(self.dense, sparse, sampler, _Timed(self.train), rounds)
        return speed(seconds, ticket.flops(self._model(), self.splits.train.image_shape))

    def _trained(self, name: str, model: nn.Module, steps: int, start: Snapshot | None = None) -> Snapshot:
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
class _Timed:
    """What the timing asks of settings."""

    train: TrainConfig

    @property
    def meta_batch(self) -> int:
        return self.train.meta_batch

    def config(self, memory_format: str) -> TrainConfig:
        return replace(self.train, memory_format=memory_format)
