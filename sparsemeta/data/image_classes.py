"""Images grouped by class: what every data set of the package is, and what tasks are drawn from."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

Statistics = tuple[Sequence[float], Sequence[float]]  # mean and standard deviation of each channel


@dataclass(frozen=True, eq=False)
class ImageClasses:
    """All images of a data set, held as one tensor, class after class.

    Attributes:
        images: uint8 ``[M, C, H, W]``, contiguous, on any device.
        labels: int64 ``[M]`` on the same device, ascending: 0 for the first class to ``len(names) - 1``.
        names: the classes, each once; ``len(dataset)`` counts them.

    Raises:
        ValueError: the three do not fit together, or a class has no image.
    """

    images: Tensor
    labels: Tensor
    names: Sequence[str]

    def __post_init__(self) -> None:
        images, labels, names = self.images, self.labels, self.names
        if images.dtype != torch.uint8 or images.ndim != 4 or not images.is_contiguous():
            got = f"{images.dtype} {list(images.shape)}"
            raise ValueError(f"images must be contiguous uint8 [M, C, H, W]; got {got}. Scale to 0..255, .contiguous()")
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1] or labels.device != images.device:
            got = f"{labels.dtype} {list(labels.shape)} on {labels.device}"
            raise ValueError(f"labels must be int64 [{len(images)}] on {images.device}; got {got}. Use one per image")
        if len(set(names)) != len(names):
            raise ValueError(f"class names must differ; got {len(names)} names, {len(set(names))} different. Rename")
        present = torch.arange(len(names), device=labels.device)
        if not torch.equal(labels.unique(), present) or (labels.diff() < 0).any():
            expected = f"labels must ascend over 0..{len(names) - 1}, one number per name and each at least once"
            raise ValueError(f"{expected}; got {labels.unique().tolist()[:10]} .... Sort the images by class")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of every image."""
        return tuple(self.images.shape[1:])

    @property
    def counts(self) -> Tensor:
        """int64 ``[len(self)]``: images of each class."""
        return torch.bincount(self.labels, minlength=len(self))

    def statistics(self) -> Statistics:
        """Mean and standard deviation of each channel over all images, for pixels in [0, 1]."""
        totals = torch.zeros(2, self.image_shape[0], dtype=torch.float64)
        for images in self.images.split(1024):  # in pieces, so that float64 copies stay small
            x = images.double() / 255
            totals += torch.stack([x.sum((0, 2, 3)), x.square().sum((0, 2, 3))]).cpu()
        mean, square = totals * self.image_shape[0] / self.images.numel()
        return mean.tolist(), (square - mean.square()).clamp(min=0).sqrt().tolist()

    def to(self, device: torch.device | str) -> ImageClasses:
        """The same classes with images and labels on ``device``."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def subset(self, classes: Iterable[str | int]) -> ImageClasses:
        """The given classes, by name or position, in the given order; labels count from 0 again.

        Raises ``ValueError`` for a class that is not there or is given twice.
        """
        positions = self._positions(classes)
        ends = self.counts.cumsum(0).tolist()
        spans = [(ends[p - 1] if p else 0, ends[p]) for p in positions]
        images = torch.cat([self.images[start:end] for start, end in spans])
        sizes = torch.tensor([end - start for start, end in spans], device=self.labels.device)
        labels = torch.arange(len(spans), device=sizes.device).repeat_interleave(sizes)
        return ImageClasses(images, labels, [self.names[p] for p in positions])

    def _positions(self, classes: Iterable[str | int]) -> list[int]:
        known = {name: position for position, name in enumerate(self.names)}
        classes = list(classes)
        positions = [known.get(c, -1) if isinstance(c, str) else c for c in classes]
        for given, position in zip(classes, positions, strict=True):
            if not 0 <= position < len(self):
                raise ValueError(f"class must be a name or a position below {len(self)}; got {given!r}. See .names")
        if not positions or len(set(positions)) != len(positions):
            raise ValueError(f"expected at least one class, each once; got {classes[:10]}. Remove the repetitions")
        return positions

    def split(self, train: int, val: int, test: int, seed: int = 0) -> Splits:
        """Classes in an order shuffled by ``seed``: the first ``train``, the next ``val``, the next ``test``.

        Raises ``ValueError`` if the data set has fewer classes than that, or a part would have none.
        """
        if min(train, val, test) < 1 or train + val + test > len(self):
            raise ValueError(
                f"expected at least one class in each of train, val and test, and {len(self)} in all; "
                f"got {train}, {val} and {test}. Ask for fewer classes"
            )
        order = list(range(len(self)))
        random.Random(seed).shuffle(order)
        ends = train, train + val, train + val + test
        return Splits(*(self.subset(order[start:end]) for start, end in zip((0, *ends), ends, strict=False)))

    def rotations(self) -> ImageClasses:
        """Four times the classes: as they are, then turned left by 90, 180 and 270 degrees (Santoro et al. 2016).

        The names of turned classes end in ``/rot90``, ``/rot180``, ``/rot270``. Raises ``ValueError`` unless square.
        """
        _, height, width = self.image_shape
        if height != width:
            raise ValueError(f"rotations need square images; got {height}x{width}. Crop or resize them")
        images = torch.cat([self.images.rot90(quarters, (2, 3)) for quarters in range(4)])
        labels = torch.cat([self.labels + quarters * len(self) for quarters in range(4)])
        names = [name + turn for turn in ("", "/rot90", "/rot180", "/rot270") for name in self.names]
        return ImageClasses(images, labels, names)


class Splits(NamedTuple):
    """Meta-training, validation and test classes; no class is in two of them."""

    train: ImageClasses
    val: ImageClasses
    test: ImageClasses
