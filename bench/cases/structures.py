"""Structures of a pattern by name: `"unstructured"`, or a block such as `"16x1"` or `"1x1x3x3"`."""

from __future__ import annotations

import re
from collections.abc import Sequence


def block_of(structure: str, weight: Sequence[int]) -> tuple[int, ...] | None:
    """Block shape by its name, or None if it does not divide the weight. Raises `ValueError` on what is no name."""
    if structure != "unstructured" and not re.fullmatch(r"[1-9]\d*x[1-9]\d*(x[1-9]\d*x[1-9]\d*)?", structure):
        raise ValueError(f'expected a pattern like "unstructured", "16x1" or "1x1x3x3", got {structure!r}')
    sizes = () if structure == "unstructured" else tuple(map(int, structure.split("x")))
    block = sizes + (1,) * (4 - len(sizes))
    return None if any(size % b for size, b in zip(weight, block, strict=True)) else block
