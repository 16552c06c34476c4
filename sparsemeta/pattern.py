"""Which weights a layer keeps: an immutable pattern, and the two linear maps between weights and kept values."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

_handles = itertools.count(1)
_by_handle: weakref.WeakValueDictionary[int, Pattern] = weakref.WeakValueDictionary()


class Pattern:
    """The kept positions of one weight, unstructured or in blocks.

    A pattern is immutable and is shared by every clone, task and step that uses it; what a kernel derives from it
    is built once (`cached`). Make one with `Pattern.from_mask`.

    Attributes:
        shape: shape of the weight, `(O, I / groups, kh, kw)` for a convolution or `(O, I)` for a linear layer.
        block: block shape, of the same length as `shape`; all ones is unstructured.
        index: int64 `[nnz]`, flat positions of the kept weights in the order of `values`: block by block in
            row-major order, row-major inside a block.
        handle: number by which an operator that cannot take Python objects finds the pattern (`Pattern.by_handle`).
    """

    def __init__(self, shape: Sequence[int], block: Sequence[int], index: Tensor):
        self.shape, self.block, self.index = tuple(shape), tuple(block), index
        self.handle = next(_handles)
        self._derived: dict[Any, Any] = {}
        self._hash = hash((self.shape, self.block, index.numpy().tobytes()))
        _by_handle[self.handle] = self
        # made here, since torch.compile and torch.func transforms, where it is asked for, cannot make a pattern
        self._conv = Pattern((*self.shape, 1, 1), (*self.block, 1, 1), index) if len(self.shape) == 2 else None

    @classmethod
    def from_mask(cls, mask: Tensor, block: Sequence[int] = (1, 1)) -> Pattern:
        """Pattern of the `True` entries of a boolean mask.

        Args:
            mask: bool, of the weight's shape: `(O, I / groups, kh, kw)` or `(O, I)`.
            block: `(o, i)`, one block per kernel tap, or `(o, i, kh, kw)`. Every block must be kept or pruned whole.

        Raises:
            TypeError: `mask` is not a boolean tensor.
            ValueError: wrong rank, a block that does not divide the shape, or a block that is partly kept.
        """
        _check_mask(mask)
        block = _check_block(tuple(mask.shape), block)
        blocks = _as_blocks(mask.cpu(), block)
        kept = blocks.any(1)
        if not torch.equal(kept, blocks.all(1)):
            partly = int((kept & ~blocks.all(1)).sum())
            raise ValueError(
                f"expected every {'x'.join(map(str, block))} block of the mask all kept or all pruned, got {partly} "
                f"partly kept block(s); use a smaller block, or round the mask to blocks first"
            )
        index = _as_blocks(torch.arange(mask.numel()).reshape(mask.shape), block)[kept].flatten()
        return cls(mask.shape, block, index)

    @staticmethod
    def by_handle(handle: int) -> Pattern:
        """The living pattern of that `handle`."""
        return _by_handle[handle]

    @property
    def nnz(self) -> int:
        """Number of kept weights."""
        return self.index.numel()

    @property
    def numel(self) -> int:
        """Number of weights, kept and pruned."""
        return torch.Size(self.shape).numel()

    @property
    def sparsity(self) -> float:
        """Fraction of the weights that is pruned, 0 to 1."""
        return 1.0 - self.nnz / max(self.numel, 1)

    def mask(self, device: torch.device | str | None = None) -> Tensor:
        """Boolean mask of the weight's shape, `True` where kept."""
        flat = torch.zeros(self.numel, dtype=torch.bool, device=device)
        return flat.index_fill_(0, self.index_on(flat.device), True).view(self.shape)

    def index_on(self, device: torch.device) -> Tensor:
        """`index` on a device, copied there once."""
        return self.index if device.type == "cpu" else self.cached(device, lambda: self.index.to(device))

    def compress(self, weight: Tensor) -> Tensor:
        """Kept entries of `weight`: `[*shape] -> [nnz]`, or per task `[T, *shape] -> [T, nnz]`. Differentiable.

        Equivalent to `weight.flatten()[pattern.index]`.
        """
        rank = len(self.shape)
        if weight.shape[max(weight.dim() - rank, 0) :] != self.shape:
            raise ValueError(
                f"expected a weight of the pattern's shape {self.shape} (with leading task axes if any), got "
                f"{tuple(weight.shape)}; make the pattern from a mask of this weight's shape"
            )
        return weight.flatten(weight.dim() - rank).index_select(-1, self.index_on(weight.device))

    def expand(self, values: Tensor) -> Tensor:
        """Weight with `values` at the kept positions and zeros elsewhere: the adjoint of `compress`. Differentiable.

        Args:
            values: `[nnz]`, or per task `[T, nnz]`.
        """
        self.check_values(values)
        flat = values.new_zeros(*values.shape[:-1], self.numel)
        return flat.index_add(-1, self.index_on(values.device), values).unflatten(-1, self.shape)

    def check_values(self, values: Tensor) -> None:
        """Raise `ValueError` unless `values` ends in an axis of `nnz` entries."""
        if values.dim() == 0 or values.shape[-1] != self.nnz:
            raise ValueError(
                f"expected values of shape ({self.nnz},) or (tasks, {self.nnz}) for this pattern of {self.shape}, got "
                f"{tuple(values.shape)}; take them from pattern.compress(weight)"
            )

    def cached(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` derives from this pattern, made once for each `key`."""
        if key not in self._derived:
            self._derived[key] = make()
        return self._derived[key]

    def as_conv(self) -> Pattern:
        """The pattern of a linear weight `(O, I)` as that of a 1x1 convolution `(O, I, 1, 1)`."""
        return self._conv

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return (
            isinstance(other, Pattern)
            and self._hash == other._hash
            and self.shape == other.shape
            and self.block == other.block
            and torch.equal(self.index, other.index)
        )

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self):
        return Pattern, (self.shape, self.block, self.index)

    def __deepcopy__(self, memo: dict) -> Pattern:
        return self

    def __repr__(self) -> str:
        return f"Pattern(shape={self.shape}, block={self.block}, nnz={self.nnz}, sparsity={self.sparsity:.3f})"


def _check_mask(mask: Tensor) -> None:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        got = f"a {mask.dtype} tensor" if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"expected a torch.bool mask, got {got}; use `weight != 0` or `mask.bool()`")
    if mask.is_meta:
        raise ValueError("expected a mask with data, got one on the meta device; make it on the CPU or a GPU")
    if mask.dim() not in (2, 4):
        raise ValueError(
            f"expected a mask of shape (O, I / groups, kh, kw) or (O, I), got {tuple(mask.shape)}; "
            f"a mask has the shape of its layer's weight"
        )


def _check_block(shape: tuple[int, ...], block: Sequence[int]) -> tuple[int, ...]:
    given, block = block, tuple(block) if isinstance(block, Sequence) else ()
    block += (1,) * (len(shape) - len(block)) if len(block) == 2 else ()
    fits = len(block) == len(shape) and all(isinstance(b, int) and b > 0 for b in block)
    if not fits or any(n % b for n, b in zip(shape, block, strict=True)):
        raise ValueError(
            f"expected a block (o, i) or (o, i, kh, kw) of positive integers that divide the shape {shape}, got "
            f"{given}; choose a block that divides every axis"
        )
    return block


def _as_blocks(weight: Tensor, block: tuple[int, ...]) -> Tensor:
    """`[O, I, ...] -> [blocks, entries of a block]`, both in row-major order."""
    rank = weight.dim()
    split = [n for size, b in zip(weight.shape, block, strict=True) for n in (size // b, b)]
    order = [*range(0, 2 * rank, 2), *range(1, 2 * rank, 2)]
    entries = torch.Size(block).numel()
    return weight.reshape(split).permute(order).reshape(weight.numel() // entries, entries)
