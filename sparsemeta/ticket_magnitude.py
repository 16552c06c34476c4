"""Tickets by magnitude: keep the largest weights, over the whole model or layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .pattern import Pattern
from .pattern_bits import every_block, keep_blocks
from .ticket_layers import current_weight, prunable

Block = Sequence[int] | Mapping[str, Sequence[int]]
SCOPES = ("global", "layer")


def magnitude_patterns(
    model: nn.Module, sparsity: float, scope: str, block: Block, exclude: Sequence[str]
) -> dict[str, Pattern]:
    """See `Ticket.magnitude`."""
    _check(sparsity, scope)
    weights = {name: current_weight(layer) for name, layer in _covered(model, exclude).items()}
    blocks = {name: _everything(name, weight, block_of(block, name)) for name, weight in weights.items()}
    scores = {name: _scores(name, weight, blocks[name]) for name, weight in weights.items()}
    groups = [list(scores)] if scope == "global" else [[name] for name in scores]
    kept = {name: mask for group in groups for name, mask in _keep(group, scores, blocks, sparsity).items()}
    return {name: keep_blocks(blocks[name], kept[name]) for name in scores}


def block_of(block: Block, name: str) -> Sequence[int]:
    """Block of one weight: the one given for all, or under its name; (1, 1) for a name that is not there."""
    return block.get(name, (1, 1)) if isinstance(block, Mapping) else block


def _check(sparsity: float, scope: str) -> None:
    if not isinstance(sparsity, int | float) or not 0 <= sparsity < 1:
        raise ValueError(f"expected sparsity, the fraction to prune, as a number 0 <= sparsity < 1, got {sparsity!r}")
    if scope not in SCOPES:
        raise ValueError(f"expected scope to be one of {SCOPES}, got {scope!r}")


def _covered(model: nn.Module, exclude: Sequence[str]) -> dict[str, nn.Module]:
    layers = prunable(model)
    for entry in (exclude := [exclude] if isinstance(exclude, str) else list(exclude)):
        if not any(_under(name, entry) for name in layers):
            raise ValueError(
                f"expected exclude to name weights or modules with a Conv2d or Linear inside, got {entry!r}; "
                f"choose from {', '.join(layers)}"
            )
    covered = {name: layer for name, layer in layers.items() if not any(_under(name, entry) for entry in exclude)}
    if not covered:
        raise ValueError(
            f"expected Conv2d or Linear weights to prune, got a {type(model).__name__} with {len(layers)}, all "
            f"excluded; exclude less, or densify a sparse model first"
        )
    return covered


def _under(name: str, entry: str) -> bool:
    return name == entry or name.startswith(f"{entry}.")


def _everything(name: str, weight: Tensor, block: Sequence[int]) -> Pattern:
    try:
        return every_block(weight.shape, block)
    except ValueError as error:
        raise ValueError(f"{name!r}: {error}, or leave the layer out: exclude=({name!r},)") from None


def _scores(name: str, weight: Tensor, blocks: Pattern) -> Tensor:
    """Mean magnitude of each block, `[blocks]`: a mean, so that blocks of different sizes compare."""
    entries = torch.Size(blocks.block).numel()
    scores = blocks.compress(weight.cpu().double().abs()).view(-1, entries).mean(1)
    if not scores.isfinite().all():
        raise ValueError(f"expected finite weights, got NaN or infinity in {name!r}; use a model before it diverged")
    return scores


def _keep(
    names: Sequence[str], scores: Mapping[str, Tensor], blocks: Mapping[str, Pattern], sparsity: float
) -> dict[str, Tensor]:
    """bool `[blocks]` for each name. One ranking for all; the best block of each is out of competition."""
    ranked = [scores[name].index_fill(0, scores[name].argmax(), torch.inf) for name in names]
    sizes = [torch.full_like(s, torch.Size(blocks[name].block).numel()) for name, s in zip(names, ranked, strict=True)]
    score, order = torch.cat(ranked).sort(stable=True)
    target = round(sparsity * sum(blocks[name].numel for name in names))
    pruned = (torch.cat(sizes)[order].cumsum(0) <= target) & score.isfinite()
    kept = torch.empty_like(pruned).index_copy_(0, order, ~pruned)
    return dict(zip(names, kept.split([len(s) for s in ranked]), strict=True))
