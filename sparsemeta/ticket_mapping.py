"""Patterns by the name of their weight, and the figures of them all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from torch import Tensor

from .pattern import Pattern
from .ticket_summary import render


class PatternMapping(Mapping[str, Pattern]):
    """An immutable mapping from names of weights to patterns; equal to another when all patterns are.

    Attributes:
        patterns: the same as a plain read-only mapping.
    """

    def __init__(self, patterns: Mapping[str, Pattern]):
        for name, pattern in patterns.items():
            if not isinstance(name, str) or not isinstance(pattern, Pattern):
                raise TypeError(
                    f"expected a Pattern for each weight's name, got {pattern!r} for {name!r}; use Ticket.from_masks"
                )
        self.patterns = MappingProxyType(dict(patterns))

    @property
    def nnz(self) -> int:
        """Number of kept weights."""
        return sum(self.kept.values())

    @property
    def numel(self) -> int:
        """Number of weights it covers, kept and pruned."""
        return sum(pattern.numel for pattern in self.values())

    @property
    def sparsity(self) -> float:
        """Fraction of the covered weights that is pruned, 0 to 1."""
        return 1.0 - self.nnz / max(self.numel, 1)

    @property
    def kept(self) -> dict[str, int]:
        """Number of kept weights by name."""
        return {name: pattern.nnz for name, pattern in self.items()}

    def masks(self) -> dict[str, Tensor]:
        """Boolean masks by name, `True` where kept."""
        return {name: pattern.mask() for name, pattern in self.items()}

    def summary(self) -> str:
        """A table as text: shape, block, kept weights and sparsity of each layer and of all."""
        return render(self)

    def __getitem__(self, name: str) -> Pattern:
        return self.patterns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.patterns)

    def __len__(self) -> int:
        return len(self.patterns)

    def __hash__(self) -> int:
        return hash(frozenset(self.items()))

    def __repr__(self) -> str:
        kept = f"{self.nnz} of {self.numel} kept"
        return f"{type(self).__name__}({len(self)} layers, {kept}, sparsity={self.sparsity:.3f})"
