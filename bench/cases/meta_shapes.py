"""Meta-steps of the few-shot literature: model, tasks, inner loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from sparsemeta.data.tasks import Tasks
from sparsemeta.meta import TrainConfig
from sparsemeta.models import Conv4, ResNet12

from .choices import check_names


@dataclass(frozen=True)
class MetaShape:
    """Tasks and model of a meta-step on square images: Conv-4 with `hidden` filters, or ResNet-12 of `widths`."""

    size: int
    channels: int
    shots: int
    hidden: int = 64
    ways: int = 5
    queries: int = 15
    steps: int = 5
    widths: tuple[int, ...] = ()

    def __str__(self) -> str:
        images = f"{self.size}x{self.size}x{self.channels}{', ResNet-12' if self.widths else ''}"
        return f"{images}, {self.ways}-way {self.shots}-shot, {self.steps} steps"

    def model(self) -> nn.Module:
        """The same in every run."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            if self.widths:
                return ResNet12(self.ways, self.channels, self.widths, self.size)
            return Conv4(self.ways, self.channels, self.hidden, self.size)

    def tasks(self, count: int) -> Tasks:
        """Noise around one image for each class, the same in every run."""
        uniform = partial(torch.rand, generator=torch.Generator().manual_seed(0))
        classes = uniform(count, self.ways, 1, self.channels, self.size, self.size)

        def images(of_class: int) -> tuple[Tensor, Tensor]:
            x = (classes + uniform(count, self.ways, of_class, *classes.shape[3:])) / 2
            return x.flatten(1, 2), torch.arange(self.ways).repeat_interleave(of_class).expand(count, -1)

        return Tasks(*images(self.shots), *images(self.queries))

    def config(self, order: str, memory_format: str = "contiguous", engine: str = "auto") -> TrainConfig:
        """With an outer rate so small that the last round of a measurement still has the weights of the first."""
        return TrainConfig(
            self.ways,
            self.shots,
            self.queries,
            self.steps,
            inner_lr=0.01,
            meta_lr=1e-6,
            first_order=order == "first",
            memory_format=memory_format,
            engine=engine,
        )


SHAPES = {
    "28": MetaShape(28, channels=1, shots=1),
    "84": MetaShape(84, channels=3, shots=5),
    "resnet12": MetaShape(32, channels=3, shots=1, queries=5, steps=1, widths=(64, 160, 320, 640)),
}


def chosen(names: Sequence[str], steps: int | None = None) -> list[MetaShape]:
    """Shapes by name, with another number of inner steps if one is given. Raises `ValueError` for what is none."""
    check_names("shape", names, SHAPES)
    if steps is not None and steps < 1:
        raise ValueError(f"expected at least one inner step, got {steps}")
    return [SHAPES[name] if steps is None else replace(SHAPES[name], steps=steps) for name in names]
