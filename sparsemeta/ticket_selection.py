"""Which units of a ranking stay: the one place where kept weights are counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

Layer = TypeVar("Layer", bound=nn.Module)


def check_sparsity(sparsity: float) -> None:
    """Raise `ValueError` unless `sparsity` is a number 0 <= sparsity < 1."""
    if not isinstance(sparsity, int | float) or not 0 <= sparsity < 1:
        raise ValueError(f"expected sparsity, the fraction to prune, as a number 0 <= sparsity < 1, got {sparsity!r}")


def keep_best(
    scores: Sequence[Tensor], sizes: Sequence[int], prune: int, protected: Sequence[Tensor]
) -> list[Tensor]:
    """One ranking for all layers: the lowest units go, as long as at most `prune` weights do.

    Of equal scores the earlier is pruned. Units of score -inf are pruned already, whatever `prune` says.

    Args:
        scores: `[units]` of each layer, higher = keep.
        sizes: weights of one unit, for each layer.
        protected: bool `[units]` of each layer, units that stay.

    Returns:
        bool `[units]` of each layer, `True` where kept.
    """
    gone = torch.cat([score == -torch.inf for score in scores])
    ranked = torch.cat([s.masked_fill(p & (s > -torch.inf), torch.inf) for s, p in zip(scores, protected, strict=True)])
    weights = torch.cat([torch.full(s.shape, n, dtype=torch.int64) for s, n in zip(scores, sizes, strict=True)])
    order = ranked.sort(stable=True).indices
    lowest = (weights[order].cumsum(0) <= prune) & (ranked[order] < torch.inf)
    kept = torch.empty_like(lowest).index_copy_(0, order, ~lowest) & ~gone
    return list(kept.split([len(s) for s in scores]))


def best_of_layer(scores: Tensor) -> Tensor:
    """bool `[units]`: the best unit, since a layer without weights cuts the network."""
    return torch.zeros_like(scores, dtype=torch.bool).index_fill_(0, scores.argmax(), True)


def covered(model: nn.Module, layers: Mapping[str, Layer], exclude: Sequence[str]) -> dict[str, Layer]:
    """`layers` (by the name of their weight) without those that `exclude` names, as weights or as modules.

    Raises:
        ValueError: an unknown name, or nothing left.
    """
    for entry in (exclude := [exclude] if isinstance(exclude, str) else list(exclude)):
        if not any(_under(name, entry) for name in layers):
            raise ValueError(
                f"expected exclude to name weights or modules with a Conv2d or Linear inside, got {entry!r}; "
                f"choose from {', '.join(layers)}"
            )
    left = {name: layer for name, layer in layers.items() if not any(_under(name, entry) for entry in exclude)}
    if not left:
        raise ValueError(
            f"expected Conv2d or Linear weights to prune, got a {type(model).__name__} with {len(layers)}, all "
            f"excluded; exclude less, or densify a sparse model first"
        )
    return left


def _under(name: str, entry: str) -> bool:
    return name == entry or name.startswith(f"{entry}.")
