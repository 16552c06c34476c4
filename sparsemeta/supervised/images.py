"""Labelled images for supervised training: what is held out, augmentation, accuracy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data import ImageClasses

Labelled = tuple[Tensor, Tensor]


def held_out(classes: ImageClasses, images: int) -> tuple[Labelled, Labelled]:
    """Training and test images with their labels: the last `images` of each class are for the test.

    Returns:
        `(uint8 [M, C, H, W], int64 [M])` twice.

    Raises:
        ValueError: a class has no more images than that.
    """
    fewest = int(classes.counts.min())
    if not 0 < images < fewest:
        raise ValueError(f"expected to hold out 1 to {fewest - 1} images of each class, got {images}; lower held_out")
    counts, places = classes.counts, torch.arange(len(classes.labels), device=classes.labels.device)
    from_end = counts.cumsum(0).repeat_interleave(counts) - places  # 1 for a class's last
    test = from_end <= images
    return (classes.images[~test], classes.labels[~test]), (classes.images[test], classes.labels[test])


def flip_and_crop(images: Tensor, padding: int = 4) -> Tensor:
    """Each image `[C, H, W]` of a batch mirrored or not, and shifted by up to `padding` pixels, zeros coming in."""
    count, _, height, width = images.shape
    mirrored = torch.rand(count, device=images.device) < 0.5
    images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)
    padded = F.pad(images, [padding] * 4)
    top, left = torch.randint(2 * padding + 1, (2, count, 1), device=images.device)
    rows = top + torch.arange(height, device=images.device)  # [N, H]
    columns = left + torch.arange(width, device=images.device)
    batch = torch.arange(count, device=images.device).view(-1, 1, 1)
    return padded[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor, batch: int = 500) -> float:
    """Percent of the images that the model, in `eval()`, labels as they are."""
    training, right = model.training, 0
    model.eval()
    for x, y in zip(images.split(batch), labels.split(batch), strict=True):
        right += int((model(x.float() / 255).argmax(1) == y).sum())
    model.train(training)
    return 100 * right / len(labels)
