"""`backend="auto"` on CPUs: each pass of each convolution by sparse kernels or by dense PyTorch, whichever is faster.

The choice is made inside the kernel call, so that the three partners stay closed under differentiation whatever each of
them takes.
"""

from __future__ import annotations

from torch import Tensor, get_num_threads

from . import choice_dense, cpu
from .tune_route import route
from .tune_store import KERNELS, Key


def masked_conv2d(x: Tensor, values: Tensor, bias: Tensor | None, conv) -> Tensor:
    """`[T?, N, C, H, W]`, `[T?, nnz]`, `[T?, O]` -> `[T?, N, O, H_out, W_out]`, contiguous."""
    return _run("forward", x.shape, x, values, bias, conv)


def masked_conv2d_input_grad(g: Tensor, values: Tensor, height: int, width: int, conv) -> Tensor:
    """`[T?, N, O, H_out, W_out]`, `[T?, nnz]` -> `[T?, N, C, height, width]`, contiguous."""
    images = *g.shape[:-3], conv.in_channels, height, width
    return _run("input gradient", images, g, values, height, width, conv)


def masked_conv2d_weight_grad(g: Tensor, x: Tensor, conv) -> Tensor:
    """`[T?, N, O, H_out, W_out]`, `[T?, N, C, H, W]` -> `[T?, nnz]`."""
    return _run("weight gradient", x.shape, g, x, conv)


def _run(operation: str, images: tuple[int, ...], *operands) -> Tensor:
    first, conv = operands[0], operands[-1]
    empty = 0 in images or not conv.pattern.nnz
    chosen = "cpu" if empty else route(_key(operation, tuple(images), conv, str(first.dtype)), conv)
    if chosen == "cpu":
        return getattr(cpu, KERNELS[operation])(*operands)
    return getattr(choice_dense, KERNELS[operation])(*operands, chosen)


def _key(operation: str, images: tuple[int, ...], conv, dtype: str) -> Key:
    geometry, threads = (conv.stride, conv.padding, conv.dilation, conv.groups), get_num_threads()

    def made() -> Key:
        pattern = conv.pattern
        density = float(f"{pattern.nnz / pattern.numel:.2g}")
        kind = dtype.removeprefix("torch.")
        return Key(operation, images, pattern.shape, pattern.block, density, *geometry, kind, threads)

    return conv.pattern.cached((operation, images, *geometry, dtype, threads), made)
