"""How many weights each layer loses, exactly, and that the best ones stay."""

from __future__ import annotations

import math

import pytest
import torch

import sparsemeta as sm
from sparsemeta.pruning import erk, masks_from_scores, ticket_from_scores

SHAPES = {"a": (8, 4, 3, 3), "b": (16, 8, 3, 3), "c": (10, 64)}


@pytest.fixture
def scores() -> dict[str, torch.Tensor]:
    return {name: torch.rand(shape, dtype=torch.float64) for name, shape in SHAPES.items()}


def pruned(masks):
    return {name: int((~mask).sum()) for name, mask in masks.items()}


@pytest.mark.parametrize("sparsity", [0, 0.33, 0.8, 0.95])
def test_global_ranks_all_together(scores, sparsity):
    masks = masks_from_scores(scores, sparsity=sparsity)
    assert sum(pruned(masks).values()) == round(sparsity * 2080)
    kept = torch.cat([scores[name][mask] for name, mask in masks.items()])
    gone = torch.cat([scores[name][~mask] for name, mask in masks.items()])
    assert not len(gone) or kept.min() > gone.max()


@pytest.mark.parametrize("sparsity", [0, 0.33, 0.8, 0.95])
def test_layers_each_lose_that_fraction(scores, sparsity):
    masks = masks_from_scores(scores, sparsity=sparsity, distribution="layer")
    assert pruned(masks) == {name: round(sparsity * math.prod(shape)) for name, shape in SHAPES.items()}
    for name, mask in masks.items():
        assert mask.all() or scores[name][mask].min() > scores[name][~mask].max()


@pytest.mark.parametrize("sparsity", [0, 0.01, 0.33, 0.8, 0.95])
def test_erk_by_hand(scores, sparsity):
    counts = erk(SHAPES, sparsity)
    assert sum(counts.values()) == round(sparsity * 2080)
    assert pruned(masks_from_scores(scores, sparsity=sparsity, distribution="erk")) == counts
    density = {name: 1 - counts[name] / math.prod(shape) for name, shape in SHAPES.items()}
    scales = {n: density[n] * math.prod(SHAPES[n]) / sum(SHAPES[n]) for n in SHAPES if counts[n]}
    assert all(0 <= count < math.prod(SHAPES[name]) for name, count in counts.items())
    if len(scales) > 1:  # layers that lose something share one scale, up to one weight
        assert max(scales.values()) - min(scales.values()) < 2 / min(sum(shape) for shape in SHAPES.values())


def test_erk_leaves_small_layers_dense():
    assert erk({"tiny": (4, 4), "large": (100, 100)}, 0.5) == {"tiny": 0, "large": 5008}


def test_given_layer_by_layer(scores):
    masks = masks_from_scores(scores, distribution={"c": 0.5, "a": 0.25, "b": 0.0})
    assert pruned(masks) == {"a": 72, "b": 0, "c": 320}


def test_one_weight_of_every_unit_stays(scores):
    scores["b"][:8] *= 1e-6
    scores["c"][3] *= 1e-6
    without = masks_from_scores(scores, sparsity=0.9)
    masks = masks_from_scores(scores, sparsity=0.9, keep_one="unit")
    assert (without["b"].flatten(1).sum(1) == 0).any() and (without["c"].sum(1) == 0).any()
    assert all((mask.flatten(1).sum(1) > 0).all() for mask in masks.values())
    assert sum(pruned(masks).values()) == round(0.9 * 2080)
    unit, best = masks["b"].flatten(1)[0], scores["b"].flatten(1)[0].argmax()
    assert unit[best] and unit.sum() == 1


def test_one_block_of_every_row_of_blocks_stays(scores):
    scores["b"][:4] *= 1e-6
    masks = masks_from_scores(scores, sparsity=0.9, kind={"b": "4x4"}, keep_one="unit")
    assert (masks["b"][:4].flatten(1).sum(1) == 4).all()


def test_every_layer_keeps_its_best(scores):
    scores["c"] *= 1e-9
    masks = masks_from_scores(scores, sparsity=0.99)
    assert masks["c"].sum() == 1 and masks["c"].flatten()[scores["c"].argmax()]


def test_what_is_pruned_already_stays_pruned(scores):
    first = masks_from_scores(scores, sparsity=0.5)
    again = {name: score.flip(0).masked_fill(~first[name], -torch.inf) for name, score in scores.items()}
    second = masks_from_scores(again, sparsity=0.75, keep_one="unit")
    assert all(not (mask & ~first[name]).any() for name, mask in second.items())
    assert sum(pruned(second).values()) == 1560


def test_magnitude_scores_give_magnitude_tickets():
    model = torch.nn.Sequential(torch.nn.Conv2d(4, 8, 3), torch.nn.Flatten(), torch.nn.Linear(8, 4))
    scores = sm.pruning.SCORES["magnitude"](model)
    for scope in ("global", "layer"):
        expected = sm.Ticket.magnitude(model, 0.7, scope, block=(2, 2))
        assert ticket_from_scores(scores, sparsity=0.7, distribution=scope, kind=(2, 2)) == expected


BAD = {
    "sparsity": ({"sparsity": 1.0}, "0 <= sparsity < 1, got 1.0"),
    "none": ({}, "got None"),
    "distribution": ({"sparsity": 0.5, "distribution": "local"}, "got 'local'"),
    "both": ({"sparsity": 0.5, "distribution": {"a": 0.5, "b": 0.5, "c": 0.5}}, "sparsity=None beside"),
    "missing": ({"distribution": {"a": 0.5, "b": 0.5}}, r"differs in \['c'\]"),
    "extra": ({"distribution": {"a": 0.5, "b": 0.5, "c": 0.5, "d": 0.5}}, r"differs in \['d'\]"),
    "one": ({"distribution": {"a": 0.5, "b": 0.5, "c": 5}}, "got 5"),
    "keep_one": ({"sparsity": 0.5, "keep_one": "row"}, "got 'row'"),
    "block": ({"sparsity": 0.5, "kind": "3x3"}, r"'a': expected a block.*got \(3, 3, 1, 1\).*exclude=\('a',\)"),
    "channels": ({"sparsity": 0.5, "keep_one": "unit", "kind": "channels"}, "keep_one='layer' for channels"),
    "kind": ({"sparsity": 0.5, "kind": "4by4"}, "got '4by4'"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_bad_arguments(scores, arguments, message):
    with pytest.raises(ValueError, match=message):
        masks_from_scores(scores, **arguments)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scores_that_are_no_ranking(scores, value):
    scores["b"][0, 0, 0, 0] = value
    with pytest.raises(ValueError, match="NaN or infinity in 'b'"):
        masks_from_scores(scores, sparsity=0.5)
