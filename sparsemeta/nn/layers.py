"""Sparse counterparts of `nn.Conv2d` and `nn.Linear`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import masked_conv2d, masked_linear
from ..ops.conv import Conv, IntPair
from ..pattern import Pattern
from .base import SparseLayer, check_pattern


class SparseConv2d(SparseLayer):
    """Convolution of which only the weights of `pattern` exist.

    Equivalent to `nn.Conv2d` with a weight that is `values` at the kept positions and zero elsewhere. Starts as that
    layer does: the values are those of the `nn.Conv2d` that the same random state would make.

    Args:
        pattern: kept positions of a weight `(O, I / groups, kh, kw)`, from which the channels and the kernel follow.
        stride, padding, dilation, groups, bias, padding_mode, device, dtype: as in `nn.Conv2d`.
        backend: `"dense"`, `"cpu"`, or `None` / `"auto"` for the fastest that can run the input.

    Raises:
        ValueError: what `nn.Conv2d` refuses, a pattern of another rank, or an unknown backend.
        RuntimeError: the named backend cannot run here; the reasons are listed.
    """

    dense_type = nn.Conv2d
    arguments = "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"

    def __init__(
        self, pattern: Pattern, stride: IntPair = 1, padding: IntPair | str = 0, dilation: IntPair = 1, groups: int = 1,
        bias: bool = True, padding_mode: str = "zeros", backend: str | None = "auto",
        device: torch.device | str | None = None, dtype: torch.dtype | None = None,
    ):
        check_pattern(pattern, 4)
        out_channels, in_channels, *kernel = pattern.shape
        super().__init__(
            nn.Conv2d(in_channels * groups, out_channels, kernel, stride, padding, dilation, groups, bias, padding_mode,
                      device, dtype), pattern, backend,
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]` or `[C, H, W]` to as many axes; with per-task values `[T, nnz]`, `[T, N, C, H, W]`."""
        if x.dim() == 3:
            return self.forward(x.unsqueeze(0)).squeeze(0)  # hooks see one call
        padding = self.padding
        if self.padding_mode != "zeros":
            x, padding = self._pad(x), 0
        return masked_conv2d(
            x, self.values, self.pattern, self.bias, self.stride, padding, self.dilation, self.groups, self.backend
        )

    def _pad(self, x: Tensor) -> Tensor:
        conv = Conv.make(self.pattern, self.stride, self.padding, self.dilation, self.groups, "dense")
        top, bottom, left, right = conv.padding
        images = F.pad(x.flatten(0, -4), (left, right, top, bottom), self.padding_mode)
        return images.unflatten(0, x.shape[:-3])


class SparseLinear(SparseLayer):
    """Linear layer of which only the weights of `pattern` exist.

    Equivalent to `nn.Linear` with a weight that is `values` at the kept positions and zero elsewhere. Starts as that
    layer does: the values are those of the `nn.Linear` that the same random state would make.

    Args:
        pattern: kept positions of a weight `(O, I)`.
        bias, device, dtype: as in `nn.Linear`.
        backend: `"dense"`, `"cpu"`, or `None` / `"auto"` for the fastest that can run the input.

    Raises:
        ValueError: a pattern of another rank, or an unknown backend.
        RuntimeError: the named backend cannot run here; the reasons are listed.
    """

    dense_type = nn.Linear
    arguments = "in_features", "out_features"

    def __init__(
        self, pattern: Pattern, bias: bool = True, backend: str | None = "auto",
        device: torch.device | str | None = None, dtype: torch.dtype | None = None,
    ):
        check_pattern(pattern, 2)
        super().__init__(nn.Linear(pattern.shape[1], pattern.shape[0], bias, device, dtype), pattern, backend)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., I] -> [..., O]`; with per-task values `[T, nnz]`, `[T, ..., I] -> [T, ..., O]`."""
        return masked_linear(x, self.values, self.pattern, self.bias, self.backend)
