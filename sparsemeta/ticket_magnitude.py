"""Tickets by magnitude: keep the largest weights, over the whole model or layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from .keys import check_keys
from .pattern import Pattern
from .pattern_bits import every_block, keep_blocks
from .ticket_layers import current_weight, prunable
from .ticket_selection import best_of_layer, check_sparsity, covered, keep_best

Block = Sequence[int] | Mapping[str, Sequence[int]]
SCOPES = ("global", "layer")


def magnitude_patterns(
    model: nn.Module, sparsity: float, scope: str, block: Block, exclude: Sequence[str]
) -> dict[str, Pattern]:
    """See `Ticket.magnitude`."""
    check_sparsity(sparsity)
    if scope not in SCOPES:
        raise ValueError(f"expected scope to be one of {SCOPES}, got {scope!r}")
    layers = prunable(model)
    check_blocks(block, layers)
    weights = {name: current_weight(layer) for name, layer in covered(model, layers, exclude).items()}
    blocks = {name: whole_blocks(name, weight.shape, block_of(block, name)) for name, weight in weights.items()}
    scores = {name: _scores(name, weight, blocks[name]) for name, weight in weights.items()}
    groups = [list(scores)] if scope == "global" else [[name] for name in scores]
    kept = {name: units for group in groups for name, units in _keep(group, scores, blocks, sparsity).items()}
    return {name: keep_blocks(blocks[name], kept[name]) for name in scores}


def check_blocks(block: Block, names: Iterable[str]) -> None:
    """Raise `ValueError` where a block is given by a name that no weight has: a slip would leave it unstructured."""
    if isinstance(block, Mapping):
        check_keys(block, names, "the name of a weight in block")


def block_of(block: Block, name: str) -> Sequence[int]:
    """Block of one weight: the one given for all, or under its name; (1, 1) for a name that is not there."""
    return block.get(name, (1, 1)) if isinstance(block, Mapping) else block


def whole_blocks(name: str, shape: Sequence[int], block: Sequence[int]) -> Pattern:
    """The pattern that keeps every block of a weight; a block that does not fit it is an error with its name."""
    try:
        return every_block(shape, block)
    except ValueError as error:
        raise ValueError(f"{name!r}: {error}, or leave the layer out: exclude=({name!r},)") from None


def mean_by_block(scores: Tensor, blocks: Pattern) -> Tensor:
    """Mean of each block, float64 `[blocks]` on the CPU: a mean, so that blocks of different sizes compare."""
    return blocks.compress(scores.cpu().double()).view(-1, torch.Size(blocks.block).numel()).mean(1)


def _scores(name: str, weight: Tensor, blocks: Pattern) -> Tensor:
    scores = mean_by_block(weight.abs(), blocks)
    if not scores.isfinite().all():
        raise ValueError(f"expected finite weights, got NaN or infinity in {name!r}; use a model before it diverged")
    return scores


def _keep(
    names: Sequence[str], scores: Mapping[str, Tensor], blocks: Mapping[str, Pattern], sparsity: float
) -> dict[str, Tensor]:
    """bool `[blocks]` for each name."""
    ranked = [scores[name] for name in names]
    sizes = [torch.Size(blocks[name].block).numel() for name in names]
    target = round(sparsity * sum(blocks[name].numel for name in names))
    return dict(zip(names, keep_best(ranked, sizes, target, [best_of_layer(s) for s in ranked]), strict=True))
