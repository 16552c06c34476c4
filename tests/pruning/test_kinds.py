"""Kinds of sparsity: the masks that they allow."""

from __future__ import annotations

import pytest
import torch

from sparsemeta.pruning import Kind, masks_from_scores, ticket_from_scores

SHAPES = {"conv": (8, 4, 3, 3), "linear": (8, 16)}


@pytest.fixture
def scores() -> dict[str, torch.Tensor]:
    return {name: torch.rand(shape, dtype=torch.float64) for name, shape in SHAPES.items()}


def whole(mask, block):
    """Whether every block of the mask is kept or pruned as one."""
    for axis, size in enumerate(block):
        mask = mask.unflatten(2 * axis, (-1, size))
    inner = list(range(1, mask.dim(), 2))
    return torch.equal(mask.amax(inner), mask.amin(inner))


BLOCKS = {
    "unstructured": ((1, 1, 1, 1), (1, 1)),
    "1x1": ((1, 1, 1, 1), (1, 1)),
    "4x2": ((4, 2, 1, 1), (4, 2)),
    "kernels": ((1, 1, 3, 3), (1, 1)),
    "channels": ((1, 4, 3, 3), (1, 16)),
}


@pytest.mark.parametrize(("kind", "blocks"), BLOCKS.items(), ids=BLOCKS)
def test_blocks_stay_or_go_whole(scores, kind, blocks):
    for (name, mask), block in zip(masks_from_scores(scores, sparsity=0.5, kind=kind).items(), blocks, strict=True):
        assert Kind.parse(kind).block(SHAPES[name]) == block
        assert Kind.parse(kind).unstructured == (kind in ("unstructured", "1x1"))
        assert whole(mask.int(), block) and 0 < mask.sum() < mask.numel()


def test_tickets_know_their_block(scores):
    ticket = ticket_from_scores(scores, sparsity=0.5, kind={"conv": (4, 4, 3, 1), "linear": "channels"})
    assert ticket["conv"].block == (4, 4, 3, 1) and ticket["linear"].block == (1, 16)


def test_a_block_counts_by_its_mean(scores):
    scores["conv"] = torch.zeros(SHAPES["conv"])
    scores["conv"][5, 2] = 0.5  # a whole kernel of middling weights
    scores["conv"][1, 1, 0, 0] = 2.0  # and one large weight: a mean of 0.22
    masks = masks_from_scores({"conv": scores["conv"]}, sparsity=31 / 32, kind="kernels")
    assert masks["conv"].nonzero()[:, :2].unique(dim=0).tolist() == [[5, 2]]


@pytest.mark.parametrize("kind", ["2:4", "1:4", "1:2"])
def test_n_of_m(scores, kind):
    n, m = map(int, kind.split(":"))
    for name, mask in masks_from_scores(scores, sparsity=1 - n / m, kind=kind).items():
        groups = mask.movedim(1, -1).unflatten(-1, (-1, m))
        assert (groups.sum(-1) == n).all()
        of_group = scores[name].movedim(1, -1).unflatten(-1, (-1, m))
        best = of_group.masked_fill(~groups, 9).amin(-1) >= of_group.masked_fill(groups, -9).amax(-1)
        assert best.all()


def test_n_of_m_and_sparser(scores):
    masks = masks_from_scores(scores, sparsity=0.75, kind="2:4", keep_one="unit")
    groups = masks["conv"].movedim(1, -1).unflatten(-1, (-1, 4)).sum(-1)
    assert groups.max() == 2 and groups.min() == 0
    assert sum(int((~mask).sum()) for mask in masks.values()) == round(0.75 * (288 + 128))


def test_n_of_m_errors(scores):
    with pytest.raises(ValueError, match="at least 0.5 for 2:4, got 0.3 for 'conv'"):
        masks_from_scores(scores, sparsity=0.3, kind="2:4")
    with pytest.raises(ValueError, match=r"'conv': expected an input axis that 8 divides for 2:8.*exclude=\('conv',\)"):
        masks_from_scores(scores, sparsity=0.75, kind="2:8")


@pytest.mark.parametrize("kind", ["", "0x4", "4", "4x4x4", "4:2", "0:4", "2:2", (4,), "blocks"])
def test_what_is_no_kind(kind):
    with pytest.raises(ValueError, match="expected a kind of sparsity"):
        Kind.parse(kind)
