"""Few-shot tasks, drawn from images grouped by class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sparsemeta.data.image_classes import ImageClasses


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
        support_x: float32 in [0, 1], ``[T, ways * shots, C, H, W]``, class after class.
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


class TaskSampler:
    """Draws N-way K-shot tasks (Vinyals et al. 2016): distinct classes, support and query images disjoint.

    The tasks are a stream that ``seed`` fixes, on every device: ``sample(8)`` draws the same as ``sample(3)`` and then
    ``sample(5)``, and nothing else that uses random numbers disturbs it.

    Args:
        dataset: classes to draw from; tasks lie on its device.
        ways: classes of a task.
        shots: support images of each class.
        queries: query images of each class.
        seed: of the stream of tasks.

    Raises:
        ValueError: a count below 1; fewer classes, or fewer images in some class, than a task needs.
    """

    def __init__(self, dataset: ImageClasses, ways: int = 5, shots: int = 1, queries: int = 15, seed: int = 0):
        if min(ways, shots, queries) < 1:
            raise ValueError(f"ways, shots and queries must be at least 1; got {ways}, {shots} and {queries}")
        if ways > len(dataset):
            raise ValueError(f"expected at least {ways} classes; got {len(dataset)}. Lower ways or add classes")
        counts = dataset.counts.cpu()
        fewest = int(counts.argmin())
        if counts[fewest] < shots + queries:
            raise ValueError(
                f"expected at least {shots} + {queries} images in every class; got {counts[fewest]} in "
                f"{dataset.names[fewest]!r}. Lower shots or queries, or drop the class with subset(...)"
            )
        self.dataset, self.ways, self.shots, self.queries = dataset, ways, shots, queries
        self._counts, self._starts = counts, counts.cumsum(0) - counts
        self._generator = torch.Generator().manual_seed(seed)

    def sample(self, n: int = 1) -> Tasks:
        """The next ``n`` tasks."""
        if n < 1:
            raise ValueError(f"expected to draw at least 1 task; got {n}")
        support, query = self._draw(n).split([self.shots, self.queries], dim=2)
        return Tasks(*self._images(support), *self._images(query))

    def _draw(self, n: int) -> Tensor:
        """Positions in the data set ``[n, ways, shots + queries]``.

        One random key for each class and each image slot; the largest keys are drawn. A task takes all its keys from
        the stream at once, so that tasks do not depend on how many are drawn together.
        """
        classes, slots = len(self._counts), int(self._counts.max())
        keys = torch.rand(n, classes + self.ways * slots, generator=self._generator)
        drawn = keys[:, :classes].topk(self.ways).indices
        keys = keys[:, classes:].unflatten(1, (self.ways, slots))
        missing = torch.arange(slots) >= self._counts[drawn, None]
        within = keys.masked_fill(missing, -1).topk(self.shots + self.queries).indices
        return self._starts[drawn, None] + within

    def _images(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Images in [0, 1] and labels for ``positions`` ``[n, ways, each]``."""
        n, ways, each = positions.shape
        images = self.dataset.images
        x = images[positions.flatten().to(images.device)].float().div_(255)
        y = torch.arange(ways, device=images.device).repeat_interleave(each).repeat(n, 1)
        return x.unflatten(0, (n, ways * each)), y

    def state_dict(self) -> dict[str, Tensor]:
        """The place in the stream of tasks, as one uint8 tensor."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on where ``state`` was taken. Raises ``ValueError`` if it is no sampler's state; nothing changes then."""
        expected = self._generator.get_state()
        got = state.get("generator")
        if not isinstance(got, Tensor) or got.dtype != expected.dtype or got.shape != expected.shape:
            raise ValueError(
                f"expected {{'generator': uint8 [{len(expected)}]}}; got {dict(state)}. "
                "Use what TaskSampler.state_dict() returned"
            )
        self._generator.set_state(got.cpu())
