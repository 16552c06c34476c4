"""What an experiment consists of: a TOML file with the tables `[family]` and `[blocks]`, or one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..keys import check_keys
from ..meta.config import TrainConfig
from ..meta.recipe import read_tables
from ..pruning.elastic_controls import CONTROLS
from ..pruning.kinds import Kind


@dataclass(frozen=True)
class Family:
    """Stretch and squeeze between two depths of the CIFAR ResNets. The defaults are E-LTH's (NeurIPS 2021).

    Attributes:
        depths: the shallower and the deeper network.
        widths: filters of each stage.
        classes, held_out: training classes to use; images of each that are for the test.
        rounds: prunings of 20 % of what is left; 6 is 73.79 %.
        steps, batch, lr, momentum, weight_decay, milestones: of a training run.
        rewind: step whose weights the tickets start from.
        stretch, squeeze: orders of the blocks.
        controls: see `sparsemeta.pruning.control`.
        seeds: each is a repetition.
    """

    depths: Sequence[int] = (20, 32)
    widths: Sequence[int] = (16, 32, 64)
    classes: int = 64
    held_out: int = 50
    rounds: int = 6
    steps: int = 20_000
    batch: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    milestones: Sequence[int] = (10_000, 15_000)
    rewind: int = 1000
    stretch: str = "append"
    squeeze: str = "consecutive"
    controls: Sequence[str] = CONTROLS
    seeds: Sequence[int] = (0,)

    def __post_init__(self) -> None:
        if len(self.depths) != 2 or not self.depths[0] < self.depths[1]:
            raise ValueError(f"expected depths to be a shallower and a deeper one, got {list(self.depths)}")
        if unknown := [name for name in self.controls if name not in CONTROLS]:
            raise ValueError(f"expected controls among {', '.join(CONTROLS)}, got {unknown}")
        if not 0 <= self.rewind < self.steps:
            raise ValueError(f"expected rewind from 0 to below {self.steps} steps, got {self.rewind}")


@dataclass(frozen=True)
class Blocks:
    """Conv-4 meta-trained with tickets of several block shapes.

    Attributes:
        shapes: such as `"4x4"`; `"1x1"` is unstructured.
        sparsities: of the convolutions; the head stays dense.
        hidden: filters of each convolution.
        rewind: meta-step whose weights the tickets start from.
        proposals: of the search for a channel permutation.
        tasks: of an evaluation, on classes that training never saw.
        timed: meta-steps of each kind that are timed.
        train: fields of `TrainConfig`.
        seeds: each is a repetition.
    """

    shapes: Sequence[str] = ("1x1", "4x4", "8x8", "16x16")
    sparsities: Sequence[float] = (0.8,)
    hidden: int = 64
    rewind: int = 60
    proposals: int = 20
    tasks: int = 600
    timed: int = 20
    train: Mapping[str, Any] = field(default_factory=dict)
    seeds: Sequence[int] = (0,)

    def __post_init__(self) -> None:
        check_keys(self.train, [f.name for f in fields(TrainConfig) if f.name != "seed"], "a key of [blocks.train]")
        if other := [shape for shape in self.shapes if Kind.parse(shape).size is None]:
            raise ValueError(f"expected shapes of blocks such as '4x4', got {other}")
        if not 0 < self.rewind < self.config(0).steps:
            raise ValueError(f"expected rewind from 1 to below {self.config(0).steps} steps, got {self.rewind}")

    def config(self, seed: int) -> TrainConfig:
        """The training of one repetition."""
        return TrainConfig(**self.train, seed=seed)


@dataclass(frozen=True)
class Experiment:
    """Both parts; None where the file has none."""

    family: Family | None = None
    blocks: Blocks | None = None

    @classmethod
    def read(cls, path: str | Path) -> Experiment:
        """From a TOML file. Raises `ValueError` for anything that is not as above."""
        tables, kinds = read_tables(path), {"family": Family, "blocks": Blocks}
        check_keys(tables, kinds, "a table of an experiment")
        for name, table in tables.items():
            if not isinstance(table, Mapping):
                raise ValueError(f"expected [{name}] to be a table; got {table!r}")
            check_keys(table, [f.name for f in fields(kinds[name])], f"a key of [{name}]")
        return cls(**{name: kinds[name](**table) for name, table in tables.items()})
