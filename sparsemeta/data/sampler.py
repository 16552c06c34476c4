"""Draws few-shot tasks from images grouped by class."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sparsemeta.data.image_classes import ImageClasses, Statistics
from sparsemeta.data.tasks import Tasks


class TaskSampler:
    """Draws N-way K-shot tasks (Vinyals et al. 2016): distinct classes, support and query images disjoint.

    The tasks are a stream that ``seed`` fixes, on every device: ``sample(8)`` draws the same as ``sample(3)`` and then
    ``sample(5)``, and nothing else that uses random numbers disturbs it.

    Args:
        dataset: classes to draw from.
        ways: classes of a task.
        shots: support images of each class.
        queries: query images of each class.
        seed: of the stream of tasks.
        device: where the images are held and the tasks lie; None for where ``dataset`` is. All images are there once,
            as uint8; only the positions of a batch travel.
        dtype: of the images of a task.
        normalise: mean and standard deviation of each channel, for images in [0, 1]: a task's are then
            ``(x - mean) / deviation``. ``ImageClasses.statistics()`` gives those of a data set.

    Raises:
        ValueError: a count below 1; statistics that do not fit the images; fewer classes, or fewer images in some
            class, than a task needs.
    """

    def __init__(
        self,
        dataset: ImageClasses,
        ways: int = 5,
        shots: int = 1,
        queries: int = 15,
        seed: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        normalise: Statistics | None = None,
    ):
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
        self.dataset = dataset if device is None else dataset.to(device)
        self.ways, self.shots, self.queries, self.dtype = ways, shots, queries, dtype
        self._normalise = None if normalise is None else self._columns(normalise)
        self._counts, self._starts = counts, counts.cumsum(0) - counts
        self._generator = torch.Generator().manual_seed(seed)

    def sample(self, n: int = 1) -> Tasks:
        """The next ``n`` tasks."""
        if n < 1:
            raise ValueError(f"expected to draw at least 1 task; got {n}")
        drawn = self._draw(n).to(self.dataset.images.device)
        support, query = drawn.split([self.shots, self.queries], dim=2)
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
        """Images and labels for ``positions`` ``[n, ways, each]``."""
        n, ways, each = positions.shape
        images = self.dataset.images
        x = images[positions.flatten()].to(self.dtype).div_(255)
        if self._normalise is not None:
            mean, deviation = self._normalise
            x = x.sub_(mean).div_(deviation)
        y = torch.arange(ways, device=images.device).repeat_interleave(each).repeat(n, 1)
        return x.unflatten(0, (n, ways * each)), y

    def _columns(self, normalise: Statistics) -> Tensor:
        """Mean and deviation ``[2, C, 1, 1]``."""
        channels, images = self.dataset.image_shape[0], self.dataset.images
        if len(normalise) != 2 or any(len(row) != channels for row in normalise) or min(normalise[1]) <= 0:
            expected = f"mean and a deviation above 0 of each of {channels} channels"
            raise ValueError(f"expected {expected}; got {normalise}. Take dataset.statistics()")
        return torch.tensor(normalise, dtype=self.dtype, device=images.device)[..., None, None]

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
