"""Kinds of sparsity: which weights stay or go together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NAMES = ("unstructured", "kernels", "channels")


@dataclass(frozen=True)
class Kind:
    """A kind of sparsity. Make one with `Kind.parse`.

    Attributes:
        name: as `parse` takes it.
        size: the block `(o, i)` or `(o, i, kh, kw)`; None where the name says it.
        of: `(n, m)` for n:m; None otherwise.
    """

    name: str
    size: tuple[int, ...] | None = None
    of: tuple[int, int] | None = None

    @classmethod
    def parse(cls, kind: str | Sequence[int] | Kind) -> Kind:
        """`"unstructured"`, `"kernels"` (whole kh x kw kernels), `"channels"` (whole output channels or units), a block
        `"4x4"`, `"4x4x3x3"` or `(4, 4)`, or `"2:4"` (at most 2 of 4 neighbours along the input axis).

        Raises:
            ValueError: none of these.
        """
        if isinstance(kind, Kind):
            return kind
        text = kind if isinstance(kind, str) else "x".join(map(str, kind))
        if text in NAMES:
            return cls(text)
        if re.fullmatch(r"[1-9]\d*x[1-9]\d*(x[1-9]\d*x[1-9]\d*)?", text):
            return cls(text, size=tuple(map(int, text.split("x"))))
        if match := re.fullmatch(r"(\d+):(\d+)", text):
            n, m = int(match[1]), int(match[2])
            if 0 < n < m:
                return cls(text, of=(n, m))
        raise ValueError(
            f"expected a kind of sparsity, one of {', '.join(NAMES)}, a block such as '4x4' or '4x4x3x3', or n:m "
            f"such as '2:4' with 0 < n < m, got {kind!r}"
        )

    def block(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Block of a weight of that shape: what stays or goes together."""
        if self.size:
            return self.size + (1,) * (len(shape) - len(self.size) if len(self.size) == 2 else 0)
        taps = tuple(shape[2:])
        return {"kernels": (1, 1, *taps), "channels": (1, *shape[1:])}.get(self.name, (1,) * len(shape))

    @property
    def unstructured(self) -> bool:
        """Whether weights stay or go one by one: by name, or as blocks of one."""
        return self.name == "unstructured" or set(self.size or ()) == {1}

    @property
    def least_sparsity(self) -> float:
        """The least that can be pruned: 1 - n / m, or 0."""
        return 1 - self.of[0] / self.of[1] if self.of else 0.0

    def admitted(self, scores: Tensor) -> Tensor:
        """`scores` `[O, I, ...]` with -inf for what cannot be kept: all but the n best of each m, for n:m.

        Raises:
            ValueError: m does not divide the input axis.
        """
        if not self.of:
            return scores
        n, m = self.of
        if scores.shape[1] % m:
            raise ValueError(f"expected an input axis that {m} divides for {self.name}, got {tuple(scores.shape)}")
        groups = scores.movedim(1, -1).unflatten(-1, (-1, m))
        best = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, groups.topk(n).indices, True)
        return groups.masked_fill(~best, -torch.inf).flatten(-2).movedim(-1, 1)


KindLike = str | Sequence[int] | Kind | Mapping[str, str | Sequence[int] | Kind]


def kind_of(kind: KindLike, name: str) -> Kind:
    """Kind of one weight: the one given for all, or under its name; unstructured for a name that is not there."""
    return Kind.parse(kind.get(name, "unstructured") if isinstance(kind, Mapping) else kind)
