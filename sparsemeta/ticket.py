"""Tickets: which weights of a model are kept, layer by layer, and where that choice came from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from .pattern import Pattern
from .ticket_file import read, write
from .ticket_flops import Flops, count
from .ticket_layers import TicketError as TicketError
from .ticket_magnitude import Block, block_of, check_blocks, magnitude_patterns
from .ticket_mapping import PatternMapping
from .ticket_prune import apply_masks, read_masks


class Ticket(PatternMapping):
    """An immutable mapping from weights, named as in `model.named_parameters()`, to the pattern each keeps.

    Weights that are not in it stay dense. Two tickets are equal when their patterns are; provenance does not count.
    """

    def __init__(self, patterns: Mapping[str, Pattern], provenance: Mapping[str, Any] | None = None):
        super().__init__(patterns)
        self._provenance = _as_json(provenance or {})

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the ticket comes from: a fresh copy, of what JSON can hold."""
        return json.loads(self._provenance)

    @classmethod
    def from_masks(
        cls, masks: Mapping[str, Tensor], block: Block = (1, 1), provenance: Mapping[str, Any] | None = None
    ) -> Ticket:
        """Ticket of boolean masks by the name of their weight.

        Args:
            masks: `{"0.weight": bool mask of the weight's shape, ...}`, `True` where kept.
            block: `(o, i)` or `(o, i, kh, kw)` for all, or `{name: block}`; the other weights are unstructured.
            provenance: where the ticket comes from; anything JSON can hold.

        Raises:
            TypeError, ValueError: as `Pattern.from_mask`, with the name of the weight; a block for another name.
        """
        check_blocks(block, masks)
        return cls({name: _pattern(name, mask, block_of(block, name)) for name, mask in masks.items()}, provenance)

    @classmethod
    def from_prune(cls, model: nn.Module, block: Block = (1, 1)) -> Ticket:
        """Ticket of the masks that `torch.nn.utils.prune` has put on a model's Conv2d and Linear weights.

        Raises:
            ValueError: no weight is pruned, or something else is (a bias, a layer of another kind).
        """
        return cls.from_masks(read_masks(model), block, {"method": "torch.nn.utils.prune"})

    def to_prune(self, model: nn.Module) -> nn.Module:
        """Prune `model` in place by `torch.nn.utils.prune`, and return it: the inverse of `from_prune`.

        Raises:
            TicketError: a weight that the model lacks, that has another shape or is pruned already; nothing is changed.
        """
        return apply_masks(model, self.patterns)

    @classmethod
    def magnitude(
        cls, model: nn.Module, sparsity: float = 0.8, scope: str = "global", block: Block = (1, 1),
        exclude: Sequence[str] = (),
    ) -> Ticket:
        """Keep the largest weights of the Conv2d and Linear layers (never biases or batch norm).

        Exactly `round(sparsity * weights)` are pruned, or as many below that as whole blocks make. The best block of a
        layer always stays, since a layer without weights cuts the network. Of equal scores the earlier is pruned.

        Args:
            sparsity: fraction of the covered weights to prune, 0 <= sparsity < 1.
            scope: `"global"` ranks all covered weights together, `"layer"` each layer by itself.
            block: as in `from_masks`; a block's score is its mean magnitude.
            exclude: weights or modules to leave dense, `"head.weight"` or `"head"`.

        Raises:
            ValueError: a block that does not divide a layer, an unknown name in `block` or `exclude`, weights that are
                not finite.
        """
        patterns = magnitude_patterns(model, sparsity, scope, block, exclude)
        return cls(patterns, {"method": "magnitude", "sparsity": sparsity, "scope": scope})

    def flops(self, model: nn.Module, input_size: Sequence[int]) -> Flops:
        """Multiply-adds of one sample by layer, dense and with this ticket, seen in one forward pass in `eval()`.

        Args:
            model: a dense model, which stays as it is; layers that the ticket does not cover count in full.
            input_size: shape of one sample without batch axis, `(C, H, W)`.

        Raises:
            TicketError: the ticket does not fit the model.
        """
        return count(model, self.patterns, input_size)

    def save(self, path: str | os.PathLike, provenance: Mapping[str, Any] | None = None) -> None:
        """Write a ticket file (`ticket_file` has its format), atomically. `provenance` is added to the ticket's own."""
        write(path, self.patterns, _as_json({**self.provenance, **(provenance or {})}))

    @classmethod
    def load(cls, path: str | os.PathLike) -> Ticket:
        """Read a ticket file.

        Raises:
            FileNotFoundError: there is none.
            TicketError: it is not a whole ticket of a version that this release knows.
        """
        return cls(*read(path))

    def __reduce__(self):
        return Ticket, (dict(self.patterns), self.provenance)

    def __deepcopy__(self, memo: dict) -> Ticket:
        return self


def _pattern(name: str, mask: Tensor, block: Sequence[int]) -> Pattern:
    try:
        return Pattern.from_mask(mask, block)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name!r}: {error}") from None


def _as_json(provenance: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(provenance))
    except (TypeError, ValueError, RecursionError) as error:
        raise TicketError(
            f"expected provenance that JSON can hold (text, numbers, lists, dicts), got {provenance!r}: {error}; "
            f"convert its values first"
        ) from None
