"""A pattern as bits, one for each block: the form in which ticket files and state dicts keep it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from .pattern import Pattern

MAX_WEIGHTS = 2**28  # of one pattern; what a file claims is held against it before anything is allocated


def pack(pattern: Pattern) -> np.ndarray:
    """uint8 `[ceil(blocks / 8)]`: the blocks in row-major order of the block grid, kept = 1.

    The first block is the highest bit of the first byte (`np.packbits`); the unused bits of the last byte are 0.
    """
    corners = pattern.mask()[tuple(slice(None, None, size) for size in pattern.block)]
    return np.packbits(corners.numpy())


def unpack(bits: np.ndarray, shape: Sequence[int], block: Sequence[int]) -> Pattern:
    """The pattern that `pack` made `bits` from.

    Raises:
        ValueError: sizes that are no shape and block, more than `MAX_WEIGHTS` weights, or bits that do not fit them.
    """
    check_sizes(shape, block)
    blocks = math.prod(shape) // math.prod(block)
    expected = -(-blocks // 8)
    if bits.dtype != np.uint8 or bits.shape != (expected,):
        raise ValueError(
            f"expected uint8 bits of shape ({expected},) for the {blocks} blocks of a weight {tuple(shape)}, got "
            f"{bits.dtype} of shape {bits.shape}"
        )
    kept = np.unpackbits(bits)
    if kept[blocks:].any():
        raise ValueError(f"expected only zeros after the {blocks} bits of a weight {tuple(shape)}, got ones")
    return keep_blocks(every_block(shape, block), torch.from_numpy(kept[:blocks]).bool())


def check_sizes(shape: Sequence[int], block: Sequence[int]) -> None:
    """Raise `ValueError` unless these are a shape and its block, of at most `MAX_WEIGHTS` weights."""
    if not all(type(n) is int and 0 <= n <= MAX_WEIGHTS for n in (*shape, *block)) or math.prod(shape) > MAX_WEIGHTS:
        raise ValueError(f"expected integer sizes of at most {MAX_WEIGHTS} weights, got {shape} in blocks of {block}")
    if len(shape) != len(block) or 0 in block or any(n % b for n, b in zip(shape, block, strict=True)):
        raise ValueError(f"expected a block that divides the shape {shape} on every axis, got {block}")


def every_block(shape: Sequence[int], block: Sequence[int]) -> Pattern:
    """The pattern that keeps everything, in these blocks."""
    return Pattern.from_mask(torch.ones(tuple(shape), dtype=torch.bool), block)


def keep_blocks(everything: Pattern, kept: torch.Tensor) -> Pattern:
    """The pattern of the blocks that are `True` in `kept`: bool `[blocks]`, in row-major order of the block grid."""
    index = everything.index.view(-1, math.prod(everything.block))[kept].flatten()
    return Pattern(everything.shape, everything.block, index)
