"""What an experiment is made of: the tables of its TOML file, as data, networks and training runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

import sparsemeta as sm
from sparsemeta.meta.prepare import judge, load_splits, sampler_of
from sparsemeta.meta.recipe import DataRecipe, TestRecipe, read_tables
from sparsemeta.meta.seeds import seeded
from sparsemeta.meta.trained import build_model

TABLES = {"experiment", "data", "model", "train", "test", "find"}


@dataclass(frozen=True)
class Setting:
    """An experiment.

    Attributes:
        tables: `[experiment]` kind and seeds; `[data]` name and arguments of the data set; `[model]` name and arguments
            of the backbone; `[train]` the fields of `TrainConfig`; `[test]` tasks and queries; `[find]` the arguments
            of `find_ticket`, and in `[find.<method>]` those of one method only.
        root: folder of the data set's files; None where it needs none.
        device: where the networks are.
    """

    tables: Mapping[str, Any]
    root: Path | None = None
    device: str = "cpu"

    @classmethod
    def read(cls, path: str | Path, root: Path | None = None, device: str = "cpu") -> Setting:
        """From a TOML file. Raises `ValueError` where it has other tables than those."""
        tables = read_tables(path)
        if tables.keys() != TABLES:
            raise ValueError(f"expected the tables {sorted(TABLES)} in {path}, got {sorted(tables)}")
        return cls(tables, root, device)

    def config(self, seed: int) -> sm.meta.TrainConfig:
        """Every choice of a training run."""
        return sm.meta.TrainConfig(**self.tables["train"], seed=seed)

    @cached_property
    def splits(self) -> sm.data.Splits:
        """Training, validation and test classes."""
        options = dict(self.tables["data"])
        return load_splits(DataRecipe(options.pop("name"), self.root, options=options), "cpu")

    def model(self, seed: int) -> nn.Module:
        """The network with the first weights of that seed."""
        options = dict(self.tables["model"])
        channels, *size = self.splits.train.image_shape
        shape = {"ways": self.config(seed).ways, "in_channels": channels, "image_size": size}
        with seeded(seed, torch.device("cpu")):
            return build_model(options.pop("name"), {**shape, **options}).to(self.device)

    def run(self, seed: int) -> sm.pruning.MetaRun:
        """The training run of that seed."""
        config = self.config(seed)
        return sm.pruning.MetaRun(sampler_of(self.splits.train, config, seed, None), config)

    def find(self, method: str, seed: int, state: Path, **more: Any) -> sm.pruning.Found:
        """`find_ticket` by this method, or what is left of it to do in the folder `state`."""
        common = {key: value for key, value in self.tables["find"].items() if not isinstance(value, Mapping)}
        options = {**common, **self.tables["find"].get(method, {}), **more}
        resume = (state / "state.json").exists()
        return sm.pruning.find_ticket(
            method, self.model(seed), run=self.run(seed), state=state, resume=resume, seed=seed, **options
        )

    def evaluation(self, model: nn.Module, seed: int, times: int = 1) -> sm.meta.Evaluation:
        """On the test tasks, or `times` as many, the same for every network."""
        test = TestRecipe(**self.tables["test"], seed=seed)
        test = replace(test, tasks=times * test.tasks)
        return judge(model, self.splits.test, self.config(seed), test, None)

    def judge(self, model: nn.Module, seed: int) -> dict[str, float]:
        """Accuracy in percent and half of its 95 % interval on the test tasks."""
        found = self.evaluation(model, seed)
        return {"accuracy": found.accuracy, "interval": found.interval}
