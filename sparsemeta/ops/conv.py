"""What a masked convolution is besides its operands: checked and put in one canonical form at the door."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..pattern import Pattern

IntPair = int | Sequence[int]


@dataclass(frozen=True)
class Conv:
    """A convolution: pattern, stride (h, w), padding (top, bottom, left, right), dilation (h, w), groups, backend."""

    pattern: Pattern
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    groups: int
    backend: str

    @classmethod
    def make(
        cls, pattern: Pattern, stride: IntPair, padding: IntPair | str, dilation: IntPair, groups: int, backend: str
    ) -> Conv:
        """Canonical form of the arguments of `F.conv2d`; raises `ValueError` on what it would refuse."""
        if not isinstance(pattern, Pattern) or len(pattern.shape) != 4:
            raise ValueError(
                f"expected a Pattern of shape (O, I / groups, kh, kw), got {named(pattern)}; "
                f"use Pattern.from_mask(mask)"
            )
        stride, dilation = pair("stride", stride, 1), pair("dilation", dilation, 1)
        if not isinstance(groups, int) or groups < 1 or pattern.shape[0] % groups:
            raise ValueError(
                f"expected groups to divide the {pattern.shape[0]} output channels, got {groups}; "
                f"use the groups of the layer that the mask is of"
            )
        return cls(pattern, stride, _padding(padding, pattern.shape[2:], stride, dilation), dilation, groups, backend)

    @property
    def in_channels(self) -> int:
        """Channels of the input."""
        return self.pattern.shape[1] * self.groups

    def output_size(self, x: Tensor) -> tuple[int, int, int]:
        """`(O, H_out, W_out)` for an input `[..., C, H, W]`; raises `ValueError` if the kernel does not fit."""
        top, bottom, left, right = self.padding
        out, _, kh, kw = self.pattern.shape
        height = (x.shape[-2] + top + bottom - self.dilation[0] * (kh - 1) - 1) // self.stride[0] + 1
        width = (x.shape[-1] + left + right - self.dilation[1] * (kw - 1) - 1) // self.stride[1] + 1
        if height < 1 or width < 1:
            raise ValueError(
                f"expected an input at least as large as the dilated kernel, got {tuple(x.shape[-2:])} with padding "
                f"{self.padding} for a kernel of {(kh, kw)} with dilation {self.dilation}; pad or enlarge it"
            )
        return out, height, width

    def flat(self) -> tuple[Any, ...]:
        """The same as arguments of a `torch.library` operator."""
        return self.pattern.handle, self.stride, self.padding, self.dilation, self.groups, self.backend

    @classmethod
    def from_flat(cls, handle: int, stride, padding, dilation, groups: int, backend: str) -> Conv:
        """Inverse of `flat`."""
        return cls(Pattern.by_handle(handle), tuple(stride), tuple(padding), tuple(dilation), groups, backend)


def named(pattern: object) -> str:
    """What was given as a pattern, in few words: not a whole tensor."""
    return repr(pattern) if isinstance(pattern, Pattern) else f"a {type(pattern).__name__}"


def pair(name: str, value: IntPair, least: int) -> tuple[int, int]:
    """`value` as two integers of at least `least`; raises `ValueError` naming the argument."""
    both = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, Sequence) else ()
    both = both * 2 if len(both) == 1 else both
    if len(both) != 2 or not all(isinstance(v, int) and v >= least for v in both):
        raise ValueError(
            f"expected {name} to be an integer or a pair of integers >= {least}, got {value!r}; "
            f"use for example {name}={least} or {name}=({least}, {least})"
        )
    return both


def _padding(padding: IntPair | str, kernel, stride, dilation) -> tuple[int, int, int, int]:
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise ValueError(f'expected padding to be integers, "same" or "valid", got {padding!r}; use one of these')
        if padding == "valid":
            return 0, 0, 0, 0
        if stride != (1, 1):
            raise ValueError(f'expected stride 1 with padding="same", got {stride}; use integers for the padding')
        (top, bottom), (left, right) = (_halves(d * (k - 1)) for d, k in zip(dilation, kernel, strict=True))
        return top, bottom, left, right
    h, w = pair("padding", padding, 0)
    return h, h, w, w


def _halves(total: int) -> tuple[int, int]:
    return total // 2, total - total // 2


def given(*operands: Tensor | None) -> list[Tensor]:
    """The operands without those left out: a backend has to be able to run every one, the bias too."""
    return [t for t in operands if t is not None]


def check_operands(x: Tensor, values: Tensor, bias: Tensor | None, conv: Conv) -> None:
    """Raise `ValueError` unless the operands of `masked_conv2d` belong together."""
    conv.pattern.check_values(values)
    tasks = values.shape[:-1]
    if len(tasks) > 1 or x.dim() not in (4, 4 + len(tasks)) or (x.dim() == 5 and x.shape[:1] != tasks):
        raise ValueError(
            f"expected x [N, C, H, W] with values [nnz], or x [T, N, C, H, W] (or [N, C, H, W], shared) with values "
            f"[T, nnz]; got x {tuple(x.shape)} and values {tuple(values.shape)}"
        )
    if x.shape[-3] != conv.in_channels:
        raise ValueError(
            f"expected an input of {conv.in_channels} channels for a weight of {conv.pattern.shape} with "
            f"groups={conv.groups}, got {tuple(x.shape)}; check groups and the pattern's layer"
        )
    check_bias(bias, conv.pattern.shape[0], tasks)
    check_same(x, values, bias)


def check_bias(bias: Tensor | None, channels: int, tasks) -> None:
    """Raise `ValueError` unless `bias` is `None`, `[O]` or, with tasks, `[T, O]`."""
    if bias is not None and bias.shape not in ((channels,), (*tasks, channels)):
        raise ValueError(
            f"expected bias of shape {(channels,)} or one row for each task, got {tuple(bias.shape)}; "
            f"use the bias of the layer that the mask is of"
        )


def check_same(x: Tensor, values: Tensor, bias: Tensor | None) -> None:
    """Raise `ValueError` unless all operands share device and, outside autocast, dtype."""
    for name, t in (("values", values), ("bias", bias)):
        if t is None:
            continue
        if t.device != x.device:
            raise ValueError(f"expected {name} on {x.device} like x, got {t.device}; move one with .to(...)")
        if t.dtype != x.dtype and not torch.is_autocast_enabled(x.device.type):
            raise ValueError(f"expected {name} of dtype {x.dtype} like x, got {t.dtype}; convert one with .to(dtype)")
