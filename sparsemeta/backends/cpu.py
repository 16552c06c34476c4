"""C++ kernels for CPUs. Tensors go to the extension as addresses and strides; it knows nothing of PyTorch."""

from __future__ import annotations

import os
from dataclasses import replace
from types import ModuleType

import torch
from torch import Tensor

from .. import _build
from ..pattern import Pattern


def _load() -> ModuleType | None:
    try:
        from sparsemeta import _C  # torch is imported by now: its libgomp serves the extension's OpenMP calls
    except ImportError:
        return None
    if isa := os.environ.get("SPARSEMETA_ISA"):  # lets the tests run the AVX2 and baseline code on any machine
        _C.set_isa(isa)
    if os.environ.get("SPARSEMETA_GENERATE") == "0":  # for systems that watch for pages that become executable
        _C.set_generate(False)
    return _C


_EXTENSION = _load()  # at import: torch.compile, which asks later, cannot follow an import


def extension() -> ModuleType | None:
    """The compiled module `sparsemeta._C`, or `None` where it was not built."""
    return _EXTENSION


def isa() -> str:
    """Instruction set of the kernels in use: `"avx512"`, `"avx2"` or `"baseline"`; `"none"` without the extension."""
    return extension().isa() if extension() else "none"


def missing() -> list[str]:
    """Why this installation has no CPU kernels, and what to do."""
    return [] if extension() else [f"the compiled extension is missing: {why}" for why in _build.missing()]


def reasons(*tensors: Tensor) -> list[str]:
    """Why these operands cannot be run."""
    found = missing()
    first = tensors[0]
    if any(t.device.type != "cpu" for t in tensors):
        found.append(f"it needs CPU tensors, got {first.device}")
    if first.dtype not in (torch.float32, torch.float64) or any(t.dtype != first.dtype for t in tensors):
        found.append(f"it needs all float32 or all float64, got {', '.join(str(t.dtype) for t in tensors)}")
    return found


def masked_conv2d(x: Tensor, values: Tensor, bias: Tensor | None, conv) -> Tensor:
    """`[T?, N, C, H, W]`, `[T?, nnz]`, `[T?, O]` -> `[T?, N, O, H_out, W_out]`, contiguous."""
    y = x.new_empty(*x.shape[:-3], *conv.output_size(x))
    values = values.contiguous()
    bias = None if bias is None else bias.contiguous()
    _plan(conv, x.shape[-2], x.shape[-1]).forward(
        x.data_ptr(),
        _strides(x),
        values.data_ptr(),
        _task_stride(values, 2),
        0 if bias is None else bias.data_ptr(),
        0 if bias is None else _task_stride(bias, 2),
        y.data_ptr(),
        _tasks(x),
        x.shape[-4],
        x.dtype == torch.float64,
        torch.get_num_threads(),
    )
    return y


def masked_conv2d_input_grad(g: Tensor, values: Tensor, height: int, width: int, conv) -> Tensor:
    """`[T?, N, O, H_out, W_out]`, `[T?, nnz]` -> `[T?, N, C, height, width]`, contiguous."""
    x = g.new_empty(*g.shape[:-3], conv.in_channels, height, width)
    values = values.contiguous()
    _plan(conv, height, width).input_grad(
        g.data_ptr(),
        _strides(g),
        values.data_ptr(),
        _task_stride(values, 2),
        x.data_ptr(),
        _tasks(g),
        g.shape[-4],
        g.dtype == torch.float64,
        torch.get_num_threads(),
    )
    return x


def masked_conv2d_weight_grad(g: Tensor, x: Tensor, conv) -> Tensor:
    """`[T?, N, O, H_out, W_out]`, `[T?, N, C, H, W]` -> `[T?, nnz]`."""
    values = g.new_empty(*g.shape[:-4], conv.pattern.nnz)
    _plan(conv, x.shape[-2], x.shape[-1]).weight_grad(
        g.data_ptr(),
        _strides(g),
        x.data_ptr(),
        _strides(x),
        values.data_ptr(),
        _tasks(g),
        g.shape[-4],
        g.dtype == torch.float64,
        torch.get_num_threads(),
    )
    return values


def _plan(conv, height: int, width: int):
    """The pattern's index for this geometry, built at its first use."""
    key = "cpu", conv.stride, conv.padding, conv.dilation, conv.groups, height, width
    return conv.pattern.cached(
        key,
        lambda: extension().ConvPlan(*_conv(conv, height, width)),
    )


def _conv(conv, height: int, width: int) -> tuple:
    """Arguments of the extension's `ConvPlan`."""
    kept = conv.pattern.index.data_ptr(), conv.pattern.nnz, conv.pattern.shape
    return *kept, (height, width), conv.stride, conv.padding, conv.dilation, conv.groups


def _strides(t: Tensor) -> tuple[int, ...]:
    """Strides of `[T, N, C, H, W]`; without tasks the first is 0."""
    return t.stride() if t.dim() == 5 else (0, *t.stride())


def _task_stride(t: Tensor, rank: int) -> int:
    return t.stride(0) if t.dim() == rank else 0


def _tasks(t: Tensor) -> int:
    return t.shape[0] if t.dim() == 5 else 1


def norm_act_pool(bias: Tensor, eps: float, slope: float, pool: int, *branches: Tensor | None) -> tuple[Tensor, ...]:
    """Branches `x [N, C, H, W], weight, mean, 1 / deviation [C]`, the residual's second -> `y, code`, and the last two.

    Where mean and deviation are None they are those of x, and computed; without a weight x is added as it is.
    """
    fours, given = zip(*(_complete(*branches[i : i + 4]) for i in range(0, len(branches), 4)), strict=True)
    first, *residual = [(*_addresses(*four), known) for four, known in zip(fours, given, strict=True)]
    x, bias = fours[0][0], _plain(bias)
    n, c, h, w = x.shape
    y, code = x.new_empty(n, c, h // pool, w // pool), x.new_empty(n, c, h // pool, w // pool, dtype=torch.uint8)
    extension().norm_act_pool(*_norm(x, eps, slope, pool), first, *_addresses(bias, y, code), *residual or [None])
    return y, code, *(t for four in fours for t in four[2:])


def norm_act_pool_grad(
    g: Tensor, code: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor, given: bool, slope: float, pool: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias; of a branch whose mean and deviation are given, or those of x."""
    g, code, *branch = (_plain(t) for t in (g, code, x, weight, mean, rstd))
    grads = torch.empty_like(branch[0]), torch.empty_like(branch[1]), torch.empty_like(branch[1])
    addresses = *_addresses(g, code), (*_addresses(*branch), given), *_addresses(*grads)
    extension().norm_act_pool_grad(*_norm(x, 0.0, slope, pool), *addresses)
    return grads


def norm_act_pool_grad_grad(
    v: Tensor, v_weight: Tensor, v_bias: Tensor, g: Tensor, code: Tensor, x: Tensor, weight: Tensor, mean: Tensor,
    rstd: Tensor, given: bool, slope: float, pool: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of g, x and weight for what comes back against the three outputs of `norm_act_pool_grad`."""
    *cotangents, g, code, x, weight, mean, rstd = (
        _plain(t) for t in (v, v_weight, v_bias, g, code, x, weight, mean, rstd)
    )
    grads = tuple(torch.empty_like(t) for t in (g, x, weight))
    branch = *_addresses(x, weight, mean, rstd), given
    addresses = *_addresses(*cotangents, g, code), branch, *_addresses(*grads)
    extension().norm_act_pool_grad_grad(*_norm(x, 0.0, slope, pool), *addresses)
    return grads


def norm_act_pool_gather(x: Tensor, code: Tensor, slope: float, pool: int) -> Tensor:
    """`[N, C, H, W]` -> what the outputs select of it."""
    x, code = _plain(x), _plain(code)
    y = x.new_empty(code.shape)
    extension().norm_act_pool_gather(*_selection(x, slope, pool), *_addresses(code, x, y))
    return y


def norm_act_pool_scatter(g: Tensor, code: Tensor, size: tuple[int, int], slope: float, pool: int) -> Tensor:
    """The adjoint of `norm_act_pool_gather`."""
    g, code = _plain(g), _plain(code)
    grad_x = g.new_empty(*g.shape[:2], *size)
    extension().norm_act_pool_scatter(*_selection(grad_x, slope, pool), *_addresses(code, g, grad_x))
    return grad_x


def _complete(
    x: Tensor, weight: Tensor | None, mean: Tensor | None, rstd: Tensor | None
) -> tuple[tuple[Tensor, ...], bool]:
    """A branch with memory of its own for mean and 1 / deviation, and whether they are given."""
    if weight is None:
        weight = rstd = x.new_ones(x.shape[1])
        mean = x.new_zeros(x.shape[1])
    statistics = (weight.new_empty(weight.shape) if t is None else _plain(t).clone() for t in (mean, rstd))
    return (_plain(x), _plain(weight), *statistics), mean is not None


def _norm(x: Tensor, eps: float, slope: float, pool: int) -> tuple:
    sizes, *rest = _selection(x, slope, pool)
    return sizes, eps, *rest


def _selection(x: Tensor, slope: float, pool: int) -> tuple:
    return (*x.shape, pool), slope, x.dtype == torch.float64, torch.get_num_threads()


def _plain(t: Tensor) -> Tensor:
    """Contiguous memory with the values themselves: no pending negation, no zeros that are only promised."""
    return (t.clone() if t._is_zerotensor() else t.resolve_neg()).contiguous()


def _addresses(*tensors: Tensor) -> list[int]:
    return [t.data_ptr() for t in tensors]


def chain(blocks, head, sizes: list[tuple[int, int]], dtype: torch.dtype):
    """The extension's object for an `ops.conv_chain.ConvChain`; `sizes` are those at the entry of every block."""
    arguments = [
        (_plan(block.conv, *size), _plan(_dual(block.conv, first=not i), *size), block.bias, block.normalises,
         block.pool, block.eps, block.slope)
        for i, (block, size) in enumerate(zip(blocks, sizes, strict=True))
    ]  # fmt: skip
    ways, features = head.pattern.shape
    linear = head.pattern.index.data_ptr(), head.pattern.nnz, features, ways, head.bias
    return extension().Chain(arguments, _conv(blocks[0].conv, *sizes[0]), *linear, dtype == torch.float64)


def run_chain(built, tensors: list[Tensor], ways: int, steps: int, order: int) -> tuple[Tensor | None, ...]:
    """`ConvChain.run` on contiguous operands: results float64 `[T, 2]`, gradient, adapted parameters and logits."""
    theta, _, support, _, query, _ = tensors
    tasks, supports, queries = *support.shape[:2], query.shape[1]
    results = torch.empty(tasks, 2, dtype=torch.float64)
    gradient = torch.empty_like(theta) if order else None
    adapted, logits = theta.new_empty(tasks, len(theta)), theta.new_empty(tasks, queries, ways)
    outputs = [0 if t is None else t.data_ptr() for t in (results, gradient, adapted, logits)]
    built.run((tasks, supports, queries, steps), order, torch.get_num_threads(), _addresses(*tensors), outputs)
    return results, gradient, adapted, logits


def _dual(conv, first: bool):
    """The convolution of a value and its tangent, `[x, dx]` to `[y, dy]`: weight `[[w, 0], [dw, w]]`.

    Images have no tangent: in the first block it is `[[w], [dw]]`, of x alone.
    """
    return replace(conv, pattern=conv.pattern.cached(("dual", first), lambda: _dual_pattern(conv.pattern, first)))


def _dual_pattern(pattern: Pattern, first: bool) -> Pattern:
    outputs, inputs, *kernel = pattern.shape
    row = inputs * torch.Size(kernel).numel()
    shape = (2 * outputs, inputs if first else 2 * inputs, *kernel)
    wide = row * shape[1] // inputs
    value = pattern.index // row * wide + pattern.index % row
    parts = [value, value + outputs * wide] + ([] if first else [value + outputs * wide + row])
    return Pattern(shape, (1, 1, 1, 1), torch.cat(parts))
