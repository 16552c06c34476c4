"""glyphs: deterministic, varied, and a few-shot problem that pixels alone do not solve."""

from __future__ import annotations

import hashlib

import pytest
import torch

from sparsemeta.data import TaskSampler, glyphs


def test_shapes_and_names():
    dataset = glyphs(classes=3, per_class=4, size=20)
    assert dataset.images.shape == (12, 1, 20, 20)
    assert dataset.counts.tolist() == [4, 4, 4]
    assert dataset.names == ["glyph0000", "glyph0001", "glyph0002"]


def test_the_same_bytes_on_every_machine():
    digest = hashlib.sha256(glyphs(classes=30, per_class=5, seed=1).images.numpy().tobytes()).hexdigest()
    assert digest[:16] == "60794f1cb632dfff"


def test_seed_and_number_of_classes():
    many = glyphs(classes=40, per_class=3)
    assert torch.equal(many.images[:30], glyphs(classes=10, per_class=3).images)
    assert not torch.equal(many.images, glyphs(classes=40, per_class=3, seed=1).images)


def test_every_drawing_is_different_and_has_ink():
    images = glyphs(classes=50, per_class=10).images.flatten(1)
    assert len(images.unique(dim=0)) == len(images)
    ink = images.float().mean(1) / 255
    assert ink.min() > 0.01 and ink.max() < 0.35
    assert (images == 255).any(1).all() and (images == 0).any(1).all()
    assert ((images > 0) & (images < 255)).any(1).all(), "no antialiasing"


@pytest.mark.parametrize("size", [28, 56])
def test_a_larger_image_shows_the_same_drawing(size):
    small, large = (glyphs(classes=5, per_class=2, size=s).images.float() / 255 for s in (14, size))
    shrunk = torch.nn.functional.avg_pool2d(large, size // 14)
    assert (small - shrunk).abs().mean() < 0.03


def test_pixels_alone_solve_it_only_in_part():
    """Nearest neighbour in pixels, 5-way 1-shot: well above chance, well below what meta-learning reaches."""
    tasks = TaskSampler(glyphs(), seed=9).sample(200)
    nearest = torch.cdist(tasks.query_x.flatten(2), tasks.support_x.flatten(2)).argmin(2)
    accuracy = (nearest == tasks.query_y).float().mean()
    assert 0.55 < accuracy < 0.8


@pytest.mark.parametrize("bad", [{"classes": 0}, {"per_class": -1}, {"size": 0}])
def test_counts_below_one(bad):
    with pytest.raises(ValueError, match="must be at least 1; got"):
        glyphs(**{"classes": 2, "per_class": 2, **bad})
