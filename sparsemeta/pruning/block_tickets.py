"""Block tickets that keep accuracy: blocks where they fit, after a permutation of the channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from ..ticket import Ticket
from .channel_permutation import ChannelPermutation, kept_magnitude, permute_channels
from .distributions import Distribution, ticket_from_scores
from .rewind import Snapshot
from .scores import SCORES
from .weights import prunable_layers, shape_of


@dataclass(frozen=True)
class BlockTicket:
    """A ticket in blocks, for a model whose channels have a new order.

    Attributes:
        ticket: for `permutation.model(model)`, and for any earlier state of it, `permutation.state(state)`.
        permutation: the new order.
        magnitude: kept magnitude over that of the unstructured ticket of the same size, which is the most there is: in
            the new order, and as the channels were.
    """

    ticket: Ticket
    permutation: ChannelPermutation
    magnitude: float
    magnitude_before: float

    def sparse(self, model: nn.Module, start: Snapshot) -> tuple[nn.Module, Snapshot]:
        """`start` in the new order, with only the ticket's weights: as `Snapshot.sparse`, optimiser's moments too.

        Args:
            model: dense, of that state's architecture; takes its weights, in place.
            start: a state of the model that the ticket was drawn from, in the order that the channels had.
        """
        names = [name for name, _ in model.named_parameters()]
        optimizer = start.optimizer and {
            **start.optimizer,
            "state": {i: self._moments(names[i], held) for i, held in start.optimizer["state"].items()},
        }
        moved = replace(start, model=self.permutation.state(start.model), optimizer=optimizer)
        return moved.sparse(model, self.ticket)

    def _moments(self, name: str, held: Mapping[str, Any]) -> dict[str, Any]:
        """What the optimiser holds for one parameter; its count of steps has no axes."""
        shaped = {key: value for key, value in held.items() if isinstance(value, Tensor) and value.dim()}
        return {**held, **{key: self.permutation.state({name: value})[name] for key, value in shaped.items()}}


def block_ticket(
    model: nn.Module, block: Sequence[int], input_size: Sequence[int], *, sparsity: float = 0.8,
    distribution: Distribution = "global", exclude: Sequence[str] = (), permute: bool = True, proposals: int = 20,
    seed: int = 0,
) -> BlockTicket:
    """Magnitude ticket in blocks, unstructured in the layers that `block` does not fit.

    Args:
        model: dense and trained; stays as it is.
        block: `(o, i)` or `(o, i, kh, kw)`.
        input_size: shape of one sample, `(C, H, W)`.
        sparsity, distribution, exclude: as in `find_ticket`.
        permute: look for a better order of the channels.
        proposals, seed: of that search, as in `permute_channels`.

    Raises:
        ValueError: as `ticket_from_scores` and `permute_channels`.
    """
    kinds = fitting_blocks(model, block, exclude)
    laying = {"sparsity": sparsity, "distribution": distribution}
    scores = SCORES["magnitude"](model, exclude=exclude)
    most = kept_magnitude(scores, ticket_from_scores(scores, **laying))
    if permute:
        search = {"exclude": exclude, "proposals": proposals, "seed": seed}
        found = permute_channels(model, input_size, kind=kinds, **search, **laying)
    else:
        kept = kept_magnitude(scores, ticket_from_scores(scores, kind=kinds, **laying))
        found = ChannelPermutation([], [], kept, kept)
    facts = {"method": "magnitude", "asked_sparsity": sparsity, "distribution": str(distribution), "block": list(block)}
    facts |= {"channels_permuted": permute, "kept_magnitude": [found.before / most, found.after / most], "seed": seed}
    ticket = ticket_from_scores(found.state(scores), kind=kinds, provenance=facts, **laying)
    return BlockTicket(ticket, found, found.after / most, found.before / most)


def fitting_blocks(model: nn.Module, block: Sequence[int], exclude: Sequence[str] = ()) -> dict[str, tuple[int, ...]]:
    """`block` for each weight whose axes it divides; weights that it does not fit are left out: unstructured."""
    shapes = {name: shape_of(layer) for name, layer in prunable_layers(model, exclude).items()}
    return {
        name: tuple(block) for name, shape in shapes.items()
        if len(block) <= len(shape) and not any(size % b for size, b in zip(shape, block, strict=False))
    }  # fmt: skip  what and where, a line each
