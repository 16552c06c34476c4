"""ImageClasses: what it accepts, subsets, splits and rotations."""

from __future__ import annotations

import pytest
import torch

from sparsemeta.data import ImageClasses


def numbered(counts, size=2):
    """Classes ``a``, ``b``, ... of the given counts; each image has its position in all four corners' places."""
    images = torch.arange(sum(counts) * size * size, dtype=torch.uint8).view(-1, 1, size, size)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return ImageClasses(images, labels, [chr(ord("a") + i) for i in range(len(counts))])


def test_counts_classes_and_shape():
    dataset = numbered([2, 3, 1])
    assert len(dataset) == 3
    assert dataset.counts.tolist() == [2, 3, 1]
    assert dataset.image_shape == (1, 2, 2)
    assert dataset.to("cpu").names == dataset.names


@pytest.mark.parametrize("classes", [["c", "a"], [2, 0], ["c", 0]])
def test_subset_keeps_the_given_order(classes):
    dataset = numbered([2, 3, 1])
    part = dataset.subset(classes)
    assert part.names == ["c", "a"]
    assert part.labels.tolist() == [0, 1, 1]
    assert torch.equal(part.images, dataset.images[[5, 0, 1]])


def test_rotations_are_further_classes():
    dataset = numbered([2, 1])
    turned = dataset.rotations()
    assert turned.names == ["a", "b", "a/rot90", "b/rot90", "a/rot180", "b/rot180", "a/rot270", "b/rot270"]
    assert turned.labels.tolist() == [0, 0, 1, 2, 2, 3, 4, 4, 5, 6, 6, 7]
    assert torch.equal(turned.images[:3], dataset.images)
    assert turned.images[3, 0].tolist() == [[1, 3], [0, 2]]  # [[0, 1], [2, 3]] turned left
    assert turned.images[6, 0].tolist() == [[3, 2], [1, 0]]
    assert turned.images[9, 0].tolist() == [[2, 0], [3, 1]]


def test_split_shuffles_by_seed_and_shares_no_class():
    dataset = numbered([1] * 20)
    splits = dataset.split(12, 3, 4, seed=5)
    assert [len(part) for part in splits] == [12, 3, 4]
    drawn = [name for part in splits for name in part.names]
    assert len(set(drawn)) == 19
    assert drawn != sorted(drawn)
    assert drawn == [name for part in dataset.split(12, 3, 4, seed=5) for name in part.names]
    assert drawn != [name for part in dataset.split(12, 3, 4, seed=6) for name in part.names]


def test_split_order_is_fixed_for_good():
    assert numbered([1] * 6).split(3, 2, 1, seed=1).train.names == ["c", "d", "f"]


IMAGES, LABELS = torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 0, 1])


@pytest.mark.parametrize(
    ("images", "labels", "names", "message"),
    [
        (IMAGES.float(), LABELS, "ab", "images must be contiguous uint8"),
        (IMAGES[:, 0], LABELS, "ab", "images must be contiguous uint8"),
        (IMAGES.expand(3, 2, 2, 2), LABELS, "ab", "images must be contiguous uint8"),
        (IMAGES, LABELS.int(), "ab", "labels must be int64"),
        (IMAGES, LABELS[:2], "ab", "labels must be int64"),
        (IMAGES, LABELS, "aa", "class names must differ"),
        (IMAGES, LABELS, "abc", "labels must ascend over 0..2"),
        (IMAGES, LABELS, "a", "labels must ascend over 0..0"),
        (IMAGES, LABELS.flip(0), "ab", "labels must ascend over 0..1"),
    ],
)
def test_parts_that_do_not_fit(images, labels, names, message):
    with pytest.raises(ValueError, match=message):
        ImageClasses(images, labels, list(names))


@pytest.mark.parametrize("classes", [["z"], [3], [-1], [], ["a", "a"], ["a", 0]])
def test_subset_of_classes_that_are_not_there(classes):
    with pytest.raises(ValueError, match="class must be a name or a position below 3|at least one class, each once"):
        numbered([2, 3, 1]).subset(classes)


@pytest.mark.parametrize("sizes", [(2, 1, 1), (3, 0, 0), (4, 1, -2)])
def test_split_larger_than_the_data_set(sizes):
    with pytest.raises(ValueError, match="at least one class in each of train, val and test, and 3 in all"):
        numbered([2, 3, 1]).split(*sizes)


def test_rotations_need_square_images():
    oblong = ImageClasses(torch.zeros(1, 1, 2, 3, dtype=torch.uint8), torch.tensor([0]), ["a"])
    with pytest.raises(ValueError, match="square images; got 2x3"):
        oblong.rotations()
