"""Masked linear layer: a masked 1x1 convolution over a view, so that it shares every kernel and derivative with it."""

from __future__ import annotations

from torch import Tensor

from .. import backends
from ..pattern import Pattern
from .conv import Conv, check_bias, check_same, given, named
from .masked_conv2d import run


def masked_linear(
    x: Tensor, values: Tensor, pattern: Pattern, bias: Tensor | None = None, backend: str | None = None
) -> Tensor:
    """Linear map with a weight of which only `pattern` is kept.

    Equivalent to `F.linear(x, pattern.expand(values), bias)`, with derivatives of every order.

    Args:
        x: `[..., I]`; with tasks `[T, ..., I]`.
        values: `[nnz]`, or `[T, nnz]`, one row for each task over the one pattern.
        pattern: kept positions of a weight `(O, I)`.
        bias: `[O]` or, with tasks, `[T, O]`.
        backend: `"dense"`, `"cpu"`, `"triton"`, `"cuda"`, or `None` / `"auto"` for the fastest that can run.

    Returns:
        `[..., O]`, or `[T, ..., O]` with tasks.

    Raises:
        ValueError: operands that do not belong together, or an unknown backend.
        RuntimeError: the named backend cannot run here; the reasons are listed.
    """
    chosen = backends.select(backend, *given(x, values, bias))
    _check(x, values, bias, pattern)
    if chosen == "dense" or x.numel() == 0:
        return backends.dense.masked_linear(x, values, bias, pattern)
    rows = x.reshape(*x.shape[: values.dim() - 1], -1, x.shape[-1])
    conv = Conv(pattern.as_conv(), (1, 1), (0, 0, 0, 0), (1, 1), 1, chosen)
    backends.check_conv(conv)
    y = run(
        rows.mT[..., None, :, None, :], values, bias, conv
    )  # [T?, 1, I, 1, rows]: the rows are the pixels of one image
    return y[..., 0, :, 0, :].mT.reshape(*x.shape[:-1], pattern.shape[0])


def _check(x: Tensor, values: Tensor, bias: Tensor | None, pattern: Pattern) -> None:
    if not isinstance(pattern, Pattern) or len(pattern.shape) != 2:
        raise ValueError(f"expected a Pattern of shape (O, I), got {named(pattern)}; use Pattern.from_mask(mask)")
    pattern.check_values(values)
    tasks = values.shape[:-1]
    if len(tasks) > 1 or x.dim() < 1 + len(tasks) or x.shape[-1] != pattern.shape[1] or x.shape[: len(tasks)] != tasks:
        raise ValueError(
            f"expected x [..., {pattern.shape[1]}] with values [nnz], or x [T, ..., {pattern.shape[1]}] with values "
            f"[T, nnz]; got x {tuple(x.shape)} and values {tuple(values.shape)}"
        )
    check_bias(bias, pattern.shape[0], tasks)
    check_same(x, values, bias)
