"""How a sparse layer lives in a state dict: its values, and beside them the pattern as two plain integer tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..pattern import Pattern
from ..pattern_bits import pack, unpack

BITS, SIZES = "pattern_bits", "pattern_sizes"


class PatternState(nn.Module):
    """A module with a `pattern` and its `values`, whose state dict holds both.

    The pattern adds `pattern_bits`, uint8 (`sparsemeta.pattern_bits.pack`), and `pattern_sizes`, int64 `[2, rank]`:
    shape and block. They are no buffers: made when a state dict is asked for, so that the pattern exists only once and
    nothing that walks over buffers (`functional_call`, averaging, `.to`) meets them.
    """

    pattern: Pattern
    values: nn.Parameter

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + BITS] = torch.from_numpy(pack(self.pattern))
        destination[prefix + SIZES] = torch.tensor([self.pattern.shape, self.pattern.block])

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing_keys, unexpected_keys, errors):
        """Adopt the pattern in the state, which may keep other weights and in other blocks, but of the same shape.

        `values` stays the same parameter, so that an optimiser goes on with it. If their number changes, the gradient
        goes, and the optimiser's own state (momentum) no longer fits: load that too, or make a new optimiser.
        """
        bits, sizes = state_dict.pop(prefix + BITS, None), state_dict.pop(prefix + SIZES, None)
        missing_keys += [prefix + key for key, tensor in ((BITS, bits), (SIZES, sizes)) if tensor is None and strict]
        try:
            if bits is not None and sizes is not None:
                self._adopt(unpack_state(bits, sizes), state_dict.get(f"{prefix}values"))
        except ValueError as error:
            errors.append(f"{prefix}pattern: {error}")
            return  # with its old pattern the layer cannot take the values either
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing_keys, unexpected_keys, errors)

    def _adopt(self, pattern: Pattern, values: Tensor | None) -> None:
        if pattern.shape != self.pattern.shape:
            raise ValueError(
                f"expected a pattern of this layer's weight, {self.pattern.shape}, got one of {pattern.shape}; "
                f"load into a model of the same architecture"
            )
        if values is None and pattern == self.pattern:  # a shared layer, whose values are saved under another name
            return
        if values is None or values.shape != (pattern.nnz,):
            got = "none" if values is None else f"values of shape {tuple(values.shape)}"
            raise ValueError(f"expected its {pattern.nnz} values beside a pattern, got {got}; the state is damaged")
        if pattern.nnz != self.pattern.nnz:
            _resize(self.values, pattern.nnz)
        if pattern != self.pattern:  # its own keeps what kernels have derived from it
            self.pattern = pattern


def unpack_state(bits: Tensor, sizes: Tensor) -> Pattern:
    if sizes.dtype != torch.int64 or sizes.dim() != 2 or len(sizes) != 2:
        got = f"{sizes.dtype} {tuple(sizes.shape)}"
        raise ValueError(f"expected {SIZES} of int64 [2, rank], got {got}; the state is damaged")
    return unpack(bits.cpu().numpy(), *sizes.tolist())


def _resize(values: nn.Parameter, size: int) -> None:
    """Give a parameter another size. A graph still alive remembers the old one; a change of dtype makes it forget."""
    old = values.data
    values.grad = None
    values.data = old.new_empty(0, dtype=torch.float32 if old.dtype == torch.float64 else torch.float64)
    values.data = old.new_empty(size)
