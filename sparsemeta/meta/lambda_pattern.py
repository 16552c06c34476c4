"""Which layers move in which inner step."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class LambdaPattern:
    """One bit for each layer, first layer first: layer l moves in the inner loop only where its bit is 1.

    Khabarlak 2022 (arXiv 2206.05930). For a network of five layers ``"11111"`` is MAML, ``"00001"`` ANIL and
    ``"11110"`` BOIL. A table of K rows, ``"11111/00011"``, has one row for each of K inner steps (reconstruction); one
    row alone holds for any number of steps. A step whose row is all zeros does nothing.

    Args:
        text: rows of 0 and 1 of the same length, joined by ``/``.

    Raises:
        ValueError: something else, or no 1 at all.
    """

    text: str

    def __post_init__(self) -> None:
        rows = self.text.split("/") if isinstance(self.text, str) else [""]
        if not all(re.fullmatch("[01]+", row) and len(row) == len(rows[0]) for row in rows) or "1" not in self.text:
            raise ValueError(
                "expected a pattern like '00111', or a row for each inner step like '11111/00011', with a 1 somewhere; "
                f"got {self.text!r}"
            )

    @classmethod
    def from_table(cls, table: Sequence[Sequence[int]]) -> LambdaPattern:
        """From ``[K, L]`` zeros and ones (anything with a ``tolist`` too), a row for each inner step."""
        rows = table.tolist() if hasattr(table, "tolist") else table
        return cls("/".join("".join(str(int(bit)) for bit in row) for row in rows))

    @classmethod
    def full(cls, layers: int) -> LambdaPattern:
        """All ones: MAML."""
        return cls("1" * layers)

    @property
    def rows(self) -> tuple[str, ...]:
        """The text of each row."""
        return tuple(self.text.split("/"))

    @property
    def layers(self) -> int:
        """L, bits of a row."""
        return len(self.rows[0])

    def active(self, step: int) -> list[int]:
        """Layers that move in inner step ``step``, from 0."""
        row = self.rows[0 if len(self.rows) == 1 else step]
        return [layer for layer, bit in enumerate(row) if bit == "1"]

    def check(self, layers: int, steps: int) -> None:
        """Raise ``ValueError`` unless it fits a network of ``layers`` layers and an inner loop of ``steps`` steps."""
        if self.layers != layers:
            raise ValueError(f"expected a pattern of {layers} bits, one for each layer; got {self} with {self.layers}")
        if len(self.rows) not in (1, steps):
            raise ValueError(f"expected one row, or one for each of {steps} inner steps; got {self}")

    def __str__(self) -> str:
        return self.text


def all_patterns(layers: int) -> list[LambdaPattern]:
    """All ``2 ** layers - 1`` patterns of one row, all ones first.

    Raises:
        ValueError: more than 12 layers.
    """
    if not 1 <= layers <= 12:
        raise ValueError(f"expected 1 to 12 layers, since each doubles the patterns; got {layers}. Give a list of them")
    return [LambdaPattern(f"{bits:0{layers}b}") for bits in range(2**layers - 1, 0, -1)]
