"""Images for supervised training."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from sparsemeta.data import ImageClasses
from sparsemeta.supervised.images import accuracy, flip_and_crop, held_out


def test_the_last_images_of_each_class_are_held_out():
    images = torch.arange(9, dtype=torch.uint8).view(9, 1, 1, 1)
    classes = ImageClasses(images, torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2][:7] + [2, 2]), ["a", "b", "c"])
    (x, y), (test_x, test_y) = held_out(classes, 1)
    assert x.flatten().tolist() == [0, 1, 2, 4, 5, 7] and y.tolist() == [0, 0, 0, 1, 1, 2]
    assert test_x.flatten().tolist() == [3, 6, 8] and test_y.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="1 to 1 images of each class, got 2"):
        held_out(classes, 2)


def test_each_image_is_mirrored_or_not_and_shifted():
    images = torch.rand(200, 2, 5, 6) + 1  # a zero comes from the border
    padded = nn.functional.pad(images, [2] * 4)
    seen = set()
    for image, both, made in zip(padded, padded.flip(3), flip_and_crop(images, 2), strict=True):
        places = [
            (mirrored, top, left)
            for mirrored, top, left in itertools.product(range(2), range(5), range(5))
            if torch.equal((image, both)[mirrored][:, top : top + 5, left : left + 6], made)
        ]
        assert len(places) == 1
        seen.add(places[0])
    assert len(seen) > 40  # of 50


def test_accuracy_counts_in_eval_and_leaves_the_mode():
    class First(nn.Module):
        def forward(self, x):
            assert not self.training
            return nn.functional.one_hot((x[:, 0, 0, 0] * 255).long(), 4).float()

    model = First()
    images = torch.tensor([0, 1, 2, 3, 3], dtype=torch.uint8).view(5, 1, 1, 1)
    assert accuracy(model, images, torch.tensor([0, 1, 2, 0, 3]), batch=2) == 80
    assert model.training
