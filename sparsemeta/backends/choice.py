"""`backend="auto"`: each pass of each convolution by sparse kernels or by dense PyTorch, whichever is faster.

The choice is made inside the kernel call, so that the three partners stay closed under differentiation whatever each of
them takes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import choice_dense, cpu, cuda, triton, tune_gpu
from .tune_key import conv_key, gpu_of, norm_key
from .tune_route import gpu_route, route
from .tune_store import DENSE, KERNELS


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


def norm_act_pool_backend(x: Tensor, pool: int, plain: bool) -> str:
    """Backend for `norm_act_pool` of `x`: on a GPU Triton where that was measured to be faster than dense.

    `plain`: with neither a residual nor given statistics, which Triton does not take.
    """
    if not gpu_of(x):
        return "cpu"
    if not plain:
        return "dense"
    key = norm_key(x, pool)
    inside = torch._C._are_functorch_transforms_active()  # where nothing that is measured could be differentiated
    chosen = gpu_route(key, None if inside else lambda: tune_gpu.times(key, None, x.device))
    return "triton" if chosen == "triton" else "dense"


def _run(operation: str, images: tuple[int, ...], *operands) -> Tensor:
    first, conv = operands[0], operands[-1]
    if gpu_of(first):
        return _run_on_gpu(operation, tuple(images), *operands)
    empty = 0 in images or not conv.pattern.nnz
    chosen = "cpu" if empty else route(conv_key(operation, tuple(images), conv, first), conv)
    if chosen == "cpu":
        return getattr(cpu, KERNELS[operation])(*operands)
    return getattr(choice_dense, KERNELS[operation])(*operands, chosen)


def _run_on_gpu(operation: str, images: tuple[int, ...], *operands) -> Tensor:
    first, conv = operands[0], operands[-1]
    key, empty = conv_key(operation, images, conv, first), 0 in images or not conv.pattern.nnz
    chosen = DENSE if empty else gpu_route(key, lambda: tune_gpu.times(key, conv, first.device))
    backend, _, way = chosen.partition(" ")
    if backend == "triton":
        return getattr(triton, KERNELS[operation])(*operands, int(way))
    if backend == "cuda":
        made = way and not cuda.generated_reasons(conv, first.device)  # that shape may come with more weights
        return getattr(cuda, KERNELS[operation])(*operands, *([way] if made else []))
    return getattr(choice_dense, KERNELS[operation])(*operands, chosen)
