"""Distributions: how much of each layer is pruned, exactly; and from scores to masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..pattern import Pattern
from ..pattern_bits import keep_blocks
from ..ticket import Ticket
from ..ticket_magnitude import mean_by_block, whole_blocks
from ..ticket_selection import best_of_layer, check_sparsity, keep_best
from .kinds import Kind, KindLike, kind_of

DISTRIBUTIONS = ("global", "layer", "erk")
Distribution = str | Mapping[str, float]
KEEP_ONE = ("layer", "unit")


def ticket_from_scores(
    scores: Mapping[str, Tensor], *, sparsity: float | None = None, distribution: Distribution = "global",
    kind: KindLike = "unstructured", keep_one: str = "layer", provenance: Mapping[str, Any] | None = None,
) -> Ticket:
    """Keep the highest scores.

    Exactly `round(sparsity * weights)` are pruned (of all, or of each layer), or as many below that as whole blocks
    make; n:m and weights of score -inf may make it more. Of equal scores the earlier is pruned.

    Args:
        scores: by name, of the weights' shapes; -inf is pruned already (a block with one such weight goes whole).
        sparsity: fraction of the weights to prune, 0 <= sparsity < 1; None where `distribution` says it.
        distribution: `"global"` ranks all weights together; `"layer"` prunes each layer by that fraction; `"erk"`
            shares it out by Erdos-Renyi-kernel (`erk`); `{name: sparsity}` gives it for each layer.
        kind: as `Kind.parse` takes it, for all or by name. A block's score is its mean.
        keep_one: what is never pruned: `"layer"`, the best block of each layer; `"unit"`, the best of each output unit
            (for blocks of several output units, of each row of blocks), so that no unit dies.

    Raises:
        ValueError: bad sparsity, distribution, kind or keep_one; a kind that does not fit a layer; NaN or +inf.
    """
    check_distribution(sparsity, distribution, scores, keep_one)
    kinds = {name: kind_of(kind, name) for name in scores}
    given = distribution if isinstance(distribution, Mapping) else dict.fromkeys(scores, sparsity)
    _check_kinds(kinds, given, keep_one)
    blocks = {name: whole_blocks(name, s.shape, kinds[name].block(s.shape)) for name, s in scores.items()}
    units = {name: _units(name, s, kinds[name], blocks[name]) for name, s in scores.items()}
    protected = {name: _protected(units[name], blocks[name], keep_one) for name in scores}
    kept: dict[str, Tensor] = {}
    for names, prune in _groups({n: s.shape for n, s in scores.items()}, sparsity, distribution):
        ranked, sizes = [units[n] for n in names], [torch.Size(blocks[n].block).numel() for n in names]
        kept |= zip(names, keep_best(ranked, sizes, prune, [protected[n] for n in names]), strict=True)
    return Ticket({name: keep_blocks(blocks[name], kept[name]) for name in scores}, provenance)


def masks_from_scores(scores: Mapping[str, Tensor], **how: Any) -> dict[str, Tensor]:
    """Boolean masks by name, `True` where kept: those of `ticket_from_scores`, with its arguments and errors."""
    return ticket_from_scores(scores, **how).masks()


def erk(shapes: Mapping[str, Sequence[int]], sparsity: float) -> dict[str, int]:
    """How many weights each layer loses by Erdos-Renyi-kernel (Evci et al. 2020, arXiv 1911.11134, section 3).

    A layer's density is proportional to the sum over the product of its sizes, and at most 1; together exactly
    `round(sparsity * weights)` are pruned, what rounding leaves over going to the largest remainders.
    """
    numel = {name: torch.Size(shape).numel() for name, shape in shapes.items()}
    prune = round(sparsity * sum(numel.values()))
    free, scale, full = dict(shapes), 0.0, True
    while free and full:  # layers whose density would pass 1 stay dense, and the others share what is left
        scale = (sum(numel[n] for n in free) - prune) / sum(sum(shape) for shape in free.values())
        full = [n for n, shape in free.items() if scale * sum(shape) > numel[n]]
        free = {n: shape for n, shape in free.items() if n not in full}
    exact = {n: numel[n] - scale * sum(shape) for n, shape in free.items()}
    counts = {n: int(exact[n]) if n in free else 0 for n in shapes}
    by_remainder = sorted(free, key=lambda n: exact[n] - int(exact[n]), reverse=True)
    for name in by_remainder[: prune - sum(counts.values())]:
        counts[name] += 1
    return counts


def check_distribution(
    sparsity: float | None, distribution: Distribution, names: Mapping[str, Any], keep_one: str = "layer"
) -> None:
    """Raise `ValueError` unless these fit together, and fit the weights of these names."""
    if keep_one not in KEEP_ONE:
        raise ValueError(f"expected keep_one to be one of {KEEP_ONE}, got {keep_one!r}")
    if not isinstance(distribution, Mapping):
        if distribution not in DISTRIBUTIONS:
            expected = f"one of {DISTRIBUTIONS} or {{name: sparsity}}"
            raise ValueError(f"expected distribution to be {expected}, got {distribution!r}")
        return check_sparsity(sparsity)
    if sparsity is not None:
        raise ValueError(f"expected sparsity=None beside a distribution by layer, got {sparsity!r}; leave it out")
    if wrong := distribution.keys() ^ names.keys():
        raise ValueError(f"expected a sparsity for each of {sorted(names)} and no other; it differs in {sorted(wrong)}")
    for value in distribution.values():
        check_sparsity(value)


def _check_kinds(kinds: Mapping[str, Kind], sparsity: Mapping[str, float], keep_one: str) -> None:
    for name, kind in kinds.items():
        if kind.name == "channels" and keep_one == "unit" and sparsity[name]:
            raise ValueError(f"expected keep_one='layer' for channels, got 'unit', which leaves all of {name!r}")
        if (asked := sparsity[name]) < kind.least_sparsity - 1e-9:
            raise ValueError(
                f"expected a sparsity of at least {kind.least_sparsity:g} for {kind.name}, got {asked:g} for {name!r}; "
                f"prune more, or keep more of each group"
            )


def _groups(
    shapes: Mapping[str, Sequence[int]], sparsity: float | None, distribution: Distribution
) -> list[tuple[list[str], int]]:
    """Which layers are ranked together, and how many weights they lose."""
    numel = {name: torch.Size(shape).numel() for name, shape in shapes.items()}
    if distribution == "global":
        return [(list(shapes), round(sparsity * sum(numel.values())))]
    if distribution == "erk":
        return [([name], count) for name, count in erk(shapes, sparsity).items()]
    by_name = distribution if isinstance(distribution, Mapping) else dict.fromkeys(shapes, sparsity)
    return [([name], round(by_name[name] * numel[name])) for name in shapes]


def _units(name: str, scores: Tensor, kind: Kind, blocks: Pattern) -> Tensor:
    """Mean score of each block, `[blocks]`."""
    scores = scores.detach().cpu().double()
    if scores.isnan().any() or (scores == torch.inf).any():
        raise ValueError(f"expected scores that are finite or -inf, got NaN or infinity in {name!r}; check the score")
    try:
        return mean_by_block(kind.admitted(scores), blocks)
    except ValueError as error:
        raise ValueError(f"{name!r}: {error}, or leave the layer out: exclude=({name!r},)") from None


def _protected(units: Tensor, blocks: Pattern, keep_one: str) -> Tensor:
    if keep_one == "layer":
        return best_of_layer(units)
    rows = units.view(blocks.shape[0] // blocks.block[0], -1)
    return torch.zeros_like(rows, dtype=torch.bool).scatter_(1, rows.argmax(1, keepdim=True), True).flatten()
