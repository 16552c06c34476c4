"""Triton kernels for GPUs: block patterns on tensor cores. With TRITON_INTERPRET=1 they run on CPU tensors too."""

from __future__ import annotations

import functools
from types import ModuleType

import torch
from torch import Tensor

from .triton_driver import allow_tf32, channels_last, interpreted, like, missing, reasons, tasks
from .triton_norm import norm_act_pool, norm_act_pool_grad, norm_act_pool_grad_grad
from .triton_tables import Table, forward_table, transposed_table, weight_strides
from .triton_update import inner_update
from .tune_key import conv_key
from .tune_route import triton_tile

__all__ = [
    "allow_tf32", "conv_reasons", "inner_update", "interpreted", "masked_conv2d", "masked_conv2d_input_grad",
    "masked_conv2d_weight_grad", "missing", "norm_act_pool", "norm_act_pool_grad", "norm_act_pool_grad_grad", "reasons",
]  # fmt: skip
PROGRAMS = 1024  # that a weight gradient is split into: not taken from the device, so that its sums are the same on all


@functools.cache
def _kernels() -> ModuleType:
    from sparsemeta.kernels import masked_conv2d  # here: importing Triton takes longer than importing the package

    return masked_conv2d


def conv_reasons(conv) -> list[str]:
    """Why this convolution cannot be run."""
    found, (out, inner, *_) = [], conv.pattern.block
    if out != inner or out not in (16, 32, 64):
        found.append(f"it needs blocks of 16x16, 32x32 or 64x64 channels, got {out}x{inner}")
    if conv.groups != 1:
        found.append(f"it needs groups=1, got {conv.groups}")
    return found


def tiles(operation: str, conv, dtype: torch.dtype) -> int:
    """Number of tiles that a pass of this convolution can be computed in."""
    kernels, arguments = _kernels(), (conv.pattern.block[0], _arithmetic(dtype)["PRECISION"])
    weight_grad = operation == "weight gradient"
    return len((kernels.weight_grad_tiles if weight_grad else kernels.gather_tiles)(*arguments))


def masked_conv2d(x: Tensor, values: Tensor, bias: Tensor | None, conv, tile: int | None = None) -> Tensor:
    """`[T?, N, C, H, W]`, `[T?, nnz]`, `[T?, O]` -> `[T?, N, O, H_out, W_out]`, channels last if `x` is."""
    y = like(x, *conv.output_size(x))
    step_o, step_i = weight_strides(conv.pattern)
    table = forward_table(conv, x.device)
    tile = _tile("forward", x.shape, conv, x) if tile is None else tile
    _gather(x, values, bias, y, conv, table, tile, SOURCE_STEP=conv.stride, WEIGHT_K=step_i, WEIGHT_N=step_o)
    return y


def masked_conv2d_input_grad(
    g: Tensor, values: Tensor, height: int, width: int, conv, tile: int | None = None
) -> Tensor:
    """`[T?, N, O, H_out, W_out]`, `[T?, nnz]` -> `[T?, N, C, height, width]`, channels last if `g` is."""
    x = like(g, conv.in_channels, height, width)
    step_o, step_i = weight_strides(conv.pattern)
    table = transposed_table(conv, g.device)
    tile = _tile("input gradient", x.shape, conv, g) if tile is None else tile
    _gather(g, values, None, x, conv, table, tile, SOURCE_STEP=(1, 1), WEIGHT_K=step_o, WEIGHT_N=step_i)
    return x


def _gather(
    source: Tensor, values: Tensor, bias: Tensor | None, target: Tensor, conv, table: Table, tile: int,
    SOURCE_STEP: tuple[int, int], WEIGHT_K: int, WEIGHT_N: int,
) -> None:  # fmt: skip
    if not target.numel():
        return
    kernels, b, source = _kernels(), conv.pattern.block[0], _near(source)
    arithmetic = _arithmetic(source.dtype)
    tile = kernels.gather_tiles(b, arithmetic["PRECISION"])[tile]
    phase = [-(-size // step) for size, step in zip(target.shape[-2:], table.phases, strict=True)]
    pixels = target.shape[-4] * phase[0] * phase[1]
    values, bias = _rows(values), None if bias is None else _rows(bias)
    with torch.cuda.device_of(source):
        kernels.gather_conv2d[table.rows * -(-pixels // tile["BLOCK_M"]), tasks(source)](
            source, values, values if bias is None else bias, target, table.starts, table.entries,
            *source.shape[-2:], *target.shape[-2:], *phase, pixels, target.shape[-3] // b, table.rows,
            *_strides(source), *_strides(target), _task_stride(values), 0 if bias is None else _task_stride(bias),
            SOURCE_STEP_H=SOURCE_STEP[0], SOURCE_STEP_W=SOURCE_STEP[1], TARGET_STEP_H=table.phases[0],
            TARGET_STEP_W=table.phases[1], WEIGHT_K=WEIGHT_K, WEIGHT_N=WEIGHT_N, HAS_BIAS=bias is not None,
            LAST=channels_last(source), B=b, **arithmetic, **tile,
        )  # fmt: skip


def masked_conv2d_weight_grad(g: Tensor, x: Tensor, conv, tile: int | None = None) -> Tensor:
    """`[T?, N, O, H_out, W_out]`, `[T?, N, C, H, W]` -> `[T?, nnz]`."""
    values = g.new_empty(*g.shape[:-4], conv.pattern.nnz)
    if not values.numel():
        return values
    kernels, b, table, g, x = _kernels(), conv.pattern.block[0], forward_table(conv, g.device), _near(g), _near(x)
    arithmetic = _arithmetic(g.dtype)
    tile = _tile("weight gradient", x.shape, conv, g) if tile is None else tile
    tile = kernels.weight_grad_tiles(b, arithmetic["PRECISION"])[tile]
    blocks, pixels = len(table.entries), g.shape[-4] * g.shape[-2] * g.shape[-1]
    split, splits = _splits(pixels, blocks * tasks(g), tile["BLOCK_K"])
    partial = values if splits == 1 else values.new_empty(splits, *values.shape, dtype=torch.float32)
    step_o, step_i = weight_strides(conv.pattern)
    with torch.cuda.device_of(g):
        kernels.weight_grad_conv2d[blocks * splits, tasks(g)](
            g, x, partial, table.entries, *x.shape[-2:], *g.shape[-2:], pixels, split, blocks,
            *_strides(g), *_strides(x), values.numel(), conv.pattern.nnz,
            STEP_H=conv.stride[0], STEP_W=conv.stride[1], WEIGHT_O=step_o, WEIGHT_I=step_i,
            G_LAST=channels_last(g), X_LAST=channels_last(x), B=b, **arithmetic, **tile,
        )  # fmt: skip
        if splits > 1:
            _sum_splits(partial, values)
    return values


def _tile(operation: str, images: torch.Size, conv, first: Tensor) -> int:
    """The fastest by what `tune` has measured on this GPU."""
    return triton_tile(conv_key(operation, tuple(images), conv, first)) if first.is_cuda else 0


def _sum_splits(partial: Tensor, total: Tensor, block: int = 256) -> None:
    _kernels().sum_splits[(-(-total.numel() // block),)](partial, total, total.numel(), len(partial), BLOCK=block)


def _splits(pixels: int, programs: int, block: int) -> tuple[int, int]:
    """Pixels of one split, a multiple of `block`, and the number of splits; a split is at least four steps long."""
    steps = -(-pixels // block)
    wanted = max(1, min(-(-PROGRAMS // programs), steps // 4))
    length = -(-steps // wanted)
    return length * block, max(1, -(-steps // max(length, 1)))


def _arithmetic(dtype: torch.dtype) -> dict[str, str | bool]:
    """Precision of float32 products, and whether operands are widened first: the interpreter multiplies no bfloat16."""
    strict = dtype == torch.float32 and not allow_tf32()
    return {"PRECISION": "ieee" if strict else "tf32", "WIDEN": interpreted() and dtype == torch.bfloat16}


def _rows(t: Tensor) -> Tensor:
    return t if t.stride(-1) == 1 else t.contiguous()


def _near(t: Tensor) -> Tensor:
    """`[T?, N, C, H, W]` whose images each span less than 2^31 elements: inside one the kernels count in 32 bits."""
    span = sum((size - 1) * stride for size, stride in zip(t.shape[-3:], t.stride()[-3:], strict=True))
    return t if span < 2**31 else t.contiguous()


def _strides(t: Tensor) -> tuple[int, ...]:
    """Strides of `[T, N, C, H, W]`; without tasks the first is 0."""
    return t.stride() if t.dim() == 5 else (0, *t.stride())


def _task_stride(t: Tensor) -> int:
    return t.stride(0) if t.dim() == 2 else 0
