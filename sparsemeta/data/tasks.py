"""Few-shot tasks: support and query images of a few classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Task(NamedTuple):
    """One task: the support set to adapt on and the query set to be judged by. Shapes as in ``Tasks``, without T."""

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor


@dataclass(frozen=True, eq=False)
class Tasks:
    """T tasks of the same shape; iterating gives each as a ``Task`` of views.

    Attributes:
        support_x: ``[T, ways * shots, C, H, W]``, class after class; float32 in [0, 1] unless the sampler was asked for
            another type or normalised images.
        support_y: int64 in 0..ways-1, ``[T, ways * shots]``.
        query_x, query_y: the same for ``ways * queries`` other images of the same classes.
    """

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor

    def __len__(self) -> int:
        return len(self.support_y)

    def __getitem__(self, index: int) -> Task:
        return Task(self.support_x[index], self.support_y[index], self.query_x[index], self.query_y[index])

    def __iter__(self) -> Iterator[Task]:
        return (self[index] for index in range(len(self)))

    def to(
        self, device: torch.device | str | None = None, memory_format: torch.memory_format = torch.preserve_format
    ) -> Tasks:
        """The same tasks on ``device``, the images of each task in ``memory_format``."""

        def place(x: Tensor) -> Tensor:
            return x.flatten(0, 1).to(device=device, memory_format=memory_format).unflatten(0, x.shape[:2])

        support_y, query_y = self.support_y.to(device), self.query_y.to(device)
        return Tasks(place(self.support_x), support_y, place(self.query_x), query_y)
