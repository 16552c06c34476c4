"""Channel permutation: the same function, with its large weights closer together, so that blocks keep more of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..pattern_bits import every_block
from ..ticket import Ticket
from ..ticket_magnitude import mean_by_block
from .channel_permutation_spaces import Space, channel_spaces
from .distributions import Distribution, ticket_from_scores
from .scores import SCORES


@dataclass(frozen=True)
class ChannelPermutation:
    """New orders of a model's channels, and what they gain.

    Attributes:
        spaces, orders: the channels that go together, and int64 `[size]` for each: position `p` takes channel
            `order[p]`.
        before, after: sum of the kept magnitudes without and with it, of the ticket that it was made for.
    """

    spaces: Sequence[Space]
    orders: Sequence[Tensor]
    before: float
    after: float

    def state(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dict of the model, or any other of its tensors by name (masks, say), permuted."""
        tensors = dict(tensors)
        for space, order in zip(self.spaces, self.orders, strict=True):
            for (name, axis), repeat in space.axes.items():
                if name in tensors:
                    tensors[name] = reordered(tensors[name], axis, order, repeat)
        return tensors

    def model(self, model: nn.Module) -> nn.Module:
        """A permuted copy, which computes what `model` computes up to rounding."""
        model = copy.deepcopy(model)
        model.load_state_dict(self.state(model.state_dict()))
        return model


def permute_channels(
    model: nn.Module, input_size: Sequence[int], *, sparsity: float, kind: Mapping[str, Sequence[int]] | Sequence[int],
    distribution: Distribution = "global", exclude: Sequence[str] = (), proposals: int = 20, seed: int = 0,
) -> ChannelPermutation:
    """Orders of the channels for which a block ticket of `model` by magnitude keeps more.

    A search in the spirit of Pool and Yu 2021 (NeurIPS, "Channel Permutations for N:M Sparsity"), for blocks: channels
    of each space by their magnitude where that is better, then random swaps of two, each kept if it gains. Every layer
    keeps its number of blocks meanwhile, so a global ranking can only gain more.

    Args:
        model: dense; stays as it is.
        input_size: shape of one sample, `(C, H, W)`.
        sparsity, distribution, exclude: of the ticket, as in `find_ticket`.
        kind: block by the name of its weight, or one for all, as in `ticket_from_scores`.
        proposals: swaps to try for each channel.
        seed: of the swaps.

    Raises:
        ValueError: as `ticket_from_scores` and `channel_spaces`.
    """
    scores = SCORES["magnitude"](model, exclude=exclude)
    laying = {"sparsity": sparsity, "distribution": distribution, "kind": kind}
    ticket = ticket_from_scores(scores, **laying)
    generator, spaces, orders, now = torch.Generator().manual_seed(seed), channel_spaces(model, input_size), [], scores
    for space in spaces:
        orders.append(_search(space, _objective(space, now, ticket), now, proposals, generator))
        now = ChannelPermutation([space], orders[-1:], 0, 0).state(now)
    before, after = kept_magnitude(scores, ticket), kept_magnitude(now, ticket_from_scores(now, **laying))
    if after < before:  # an objective that left out blocks across several channels was wrong
        orders, after = [torch.arange(space.size) for space in spaces], before
    return ChannelPermutation(spaces, orders, before, after)


def kept_magnitude(scores: Mapping[str, Tensor], ticket: Ticket) -> float:
    """Sum of the scores that the ticket keeps."""
    return sum(pattern.compress(scores[name]).sum().item() for name, pattern in ticket.items())


def reordered(tensor: Tensor, axis: int, order: Tensor, repeat: int) -> Tensor:
    """`tensor` with the channels of one axis in a new order, `repeat` entries of the axis for each."""
    entries = (order[:, None] * repeat + torch.arange(repeat)).flatten()
    return tensor.index_select(axis, entries.to(tensor.device))


def _objective(space: Space, scores: Mapping[str, Tensor], ticket: Ticket) -> Callable[[Tensor], float]:
    """What the layers whose blocks join channels of `space` keep under an order of it."""
    covered = [(name, axis, repeat) for (name, axis), repeat in space.axes.items() if name in ticket]
    names = {name for name, axis, repeat in covered if ticket[name].block[axis] > repeat}
    blocks = {name: every_block(ticket[name].shape, ticket[name].block) for name in names}
    kept = {name: ticket[name].nnz // torch.Size(ticket[name].block).numel() for name in names}

    def magnitude(order: Tensor) -> float:
        permuted = ChannelPermutation([space], [order], 0, 0).state({name: scores[name] for name in names})
        means = {name: mean_by_block(tensor, blocks[name]) for name, tensor in permuted.items()}
        return sum(m.topk(kept[n]).values.sum().item() * torch.Size(blocks[n].block).numel() for n, m in means.items())

    return magnitude if names else lambda order: 0.0


def _search(
    space: Space, objective: Callable[[Tensor], float], scores: Mapping[str, Tensor], proposals: int,
    generator: torch.Generator,
) -> Tensor:
    order = torch.arange(space.size)
    best = objective(order)
    if not best:  # no block joins these channels
        return order
    by_size = _magnitudes(space, scores).argsort(descending=True)
    if (gained := objective(by_size)) > best:
        order, best = by_size, gained
    for first, second in torch.randint(space.size, (proposals * space.size, 2), generator=generator).tolist():
        swapped = order.clone()
        swapped[[first, second]] = order[[second, first]]
        if (gained := objective(swapped)) > best:
            order, best = swapped, gained
    return order


def _magnitudes(space: Space, scores: Mapping[str, Tensor]) -> Tensor:
    """Total score of each channel."""
    axes = [(scores[name].movedim(axis, 0), repeat) for (name, axis), repeat in space.axes.items() if name in scores]
    return sum(tensor.reshape(space.size, -1).sum(1) for tensor, _ in axes)
