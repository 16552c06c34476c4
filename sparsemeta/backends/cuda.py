"""CUDA C++ kernels for NVIDIA GPUs: fp32, or bf16 with sums in fp32. Not yet run on a GPU.

Nothing here waits for the device, so that an operation can be captured in a CUDA graph; only the first call with a
pattern and an image size does, when it copies the pattern's table there or compiles its code: run once before
capturing, and keep the pattern for as long as the graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .cuda_driver import emulation, extension, launching, missing, processors, reasons
from .cuda_generated import generated_reasons
from .cuda_table import FORWARD, INPUT_GRAD, WEIGHT_GRAD, table_of

__all__ = [
    "WAYS", "emulation", "generated_reasons", "inner_update", "masked_conv2d", "masked_conv2d_input_grad",
    "masked_conv2d_update", "masked_conv2d_weight_grad", "missing", "reasons",
]  # fmt: skip

WAYS = "table", "generated"  # of forward and input gradient: one kernel that reads a table, or one made for the pattern


def masked_conv2d(x: Tensor, values: Tensor, bias: Tensor | None, conv, way: str = "table") -> Tensor:
    """`[T?, N, C, H, W]`, `[T?, nnz]`, `[T?, O]` -> `[T?, N, O, H_out, W_out]`, contiguous; `way`: one of `WAYS`."""
    y = x.new_empty(*x.shape[:-3], *conv.output_size(x))
    _convolve("masked_conv2d", FORWARD, x, values, bias, y, x.shape[-2:], conv, way)
    return y


def masked_conv2d_input_grad(g: Tensor, values: Tensor, height: int, width: int, conv, way: str = "table") -> Tensor:
    """`[T?, N, O, H_out, W_out]`, `[T?, nnz]` -> `[T?, N, C, height, width]`, contiguous; `way`: one of `WAYS`."""
    x = g.new_empty(*g.shape[:-3], conv.in_channels, height, width)
    _convolve("masked_conv2d_input_grad", INPUT_GRAD, g, values, None, x, (height, width), conv, way)
    return x


def masked_conv2d_weight_grad(g: Tensor, x: Tensor, conv) -> Tensor:
    """`[T?, N, O, H_out, W_out]`, `[T?, N, C, H, W]` -> `[T?, nnz]`."""
    return _weight_gradient("masked_conv2d_weight_grad", g, x, None, 0.0, conv)


def masked_conv2d_update(values: Tensor, g: Tensor, x: Tensor, lr: float, conv) -> Tensor:
    """`[T?, nnz]`, `[T?, N, O, H_out, W_out]`, `[T?, N, C, H, W]` -> `values - lr * gradient`, `[T?, nnz]`."""
    return _weight_gradient("masked_conv2d_update", g, x, values.contiguous(), lr, conv)


def _weight_gradient(operation: str, g: Tensor, x: Tensor, values: Tensor | None, lr: float, conv) -> Tensor:
    """The gradient, or with `values` what a step leaves of them: written while the gradient is in registers."""
    out = g.new_empty(*g.shape[:-4], conv.pattern.nnz)
    tasks, images = _tasks(g), g.shape[-4]
    with launching(operation, g, x) as where:
        table = table_of(WEIGHT_GRAD, conv, x.shape[-2:], tasks, images, g.device)
        splits = table.plan.splits(tasks, images, processors(g.device))
        parts = g.new_empty(splits if splits > 1 else 0, tasks, conv.pattern.nnz, dtype=torch.float32)
        table.plan.weight_gradient(
            table.on_stream(where),
            g.data_ptr(),
            _strides(g),
            x.data_ptr(),
            _strides(x),
            out.data_ptr(),
            parts.data_ptr(),
            0 if values is None else values.data_ptr(),
            0 if values is None else _task_stride(values),
            lr,
            tasks,
            images,
            splits,
            g.dtype == torch.bfloat16,
            where,
        )
    return out


def inner_update(params: Sequence[Tensor | None], grads: Sequence[Tensor], rates: Sequence[float]) -> list[Tensor]:
    """`p_i - rate_i * g_i`, contiguous, for up to 64 parameters in one launch; params that are None are zeros."""
    outs = [torch.empty_like(g) for g in grads]
    addresses = [[0 if t is None else t.data_ptr() for t in tensors] for tensors in (params, grads, outs)]
    with launching("inner_update", *grads) as where:
        bf16 = grads[0].dtype == torch.bfloat16
        extension().inner_update(*addresses, [g.numel() for g in grads], rates, bf16, where)
    return outs


def _convolve(
    operation: str, kind: int, x: Tensor, values: Tensor, bias: Tensor | None, y: Tensor, size, conv, way: str
) -> None:
    values = values.contiguous()
    bias = None if bias is None else bias.contiguous()
    tasks, images = _tasks(x), x.shape[-4]
    with launching(operation, x, values) as where:
        table = table_of(kind, conv, size, tasks, images, x.device, way == "generated")
        operands = (
            table.on_stream(where),
            x.data_ptr(),
            _strides(x),
            values.data_ptr(),
            _task_stride(values),
            0 if bias is None else bias.data_ptr(),
            0 if bias is None else _task_stride(bias),
            y.data_ptr(),
            _strides(y),
        )
        table.convolve(operands, tasks, images, x.dtype == torch.bfloat16, where)


def _strides(t: Tensor) -> tuple[int, ...]:
    """Strides of `[T, N, C, H, W]`; without tasks the first is 0."""
    return t.stride() if t.dim() == 5 else (0, *t.stride())


def _task_stride(t: Tensor) -> int:
    return t.stride(0) if t.dim() == 2 else 0


def _tasks(t: Tensor) -> int:
    return t.shape[0] if t.dim() == 5 else 1
