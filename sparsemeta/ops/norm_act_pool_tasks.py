"""`norm_act_pool` by kernels with a task axis, and its derivatives: operands `[T?, N, C, H, W]` and `[T?, C]`.

First and second derivatives are kernels; a third is PyTorch's, of the first written out.
"""

from __future__ import annotations

import inspect

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from .. import backends


class TasksNorm(Function):
    """`x, weight, bias -> y`, and what the derivatives need: mean, 1 / deviation, and which elements were selected."""

    @staticmethod
    def forward(x, weight, bias, eps, slope, pool, backend):
        return backends.kernels(backend).norm_act_pool(x, weight, bias, eps, slope, pool)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, weight, _, *ctx.options = inputs
        _, *statistics = output
        ctx.mark_non_differentiable(*statistics)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight, *statistics)

    @staticmethod
    def backward(ctx, g, *_):
        if g is None:
            return (None,) * 7
        return *TasksNormGrad.apply(g, *ctx.saved_tensors, *ctx.options), *(None,) * 4

    @staticmethod
    def vmap(info, in_dims, *inputs):
        *operands, eps, slope, pool, backend = inputs
        folded = _folded(operands, in_dims, info.batch_size, (5, 2, 2))
        return _unfolded(TasksNorm.apply(*folded, eps, slope, pool, backend), operands[0], in_dims[0], info.batch_size)


class TasksNormGrad(Function):
    """`g, x, weight -> ` gradients of x, weight and bias. The statistics are functions of x, not operands."""

    @staticmethod
    def forward(g, x, weight, mean, rstd, code, eps, slope, pool, backend):
        return backends.kernels(backend).norm_act_pool_grad(g, x, weight, mean, rstd, code, slope, pool)

    @staticmethod
    def setup_context(ctx, inputs, output):
        *saved, ctx.eps, ctx.slope, ctx.pool, ctx.backend = inputs
        ctx.save_for_backward(*saved)

    @staticmethod
    def backward(ctx, *v):
        g, x, weight, mean, rstd, code = ctx.saved_tensors
        rest = (None,) * 7
        if torch.is_grad_enabled():  # a third derivative is wanted
            written = lambda *t: first_derivative(*t, code, ctx.eps, ctx.slope, ctx.pool)  # noqa: E731  pulled back
            return *torch.func.vjp(written, g, x, weight)[1](v), *rest
        kernel = backends.kernels(ctx.backend).norm_act_pool_grad_grad
        return *kernel(*v, g, x, weight, mean, rstd, code, ctx.slope, ctx.pool), *rest

    @staticmethod
    def vmap(info, in_dims, *inputs):
        operands, options = inputs[:6], inputs[6:]
        folded = _folded(operands, in_dims, info.batch_size, (5, 5, 2, 2, 2, 5))
        return _unfolded(TasksNormGrad.apply(*folded, *options), operands[1], in_dims[1], info.batch_size)


for _function in (TasksNorm, TasksNormGrad):
    # Function.apply asks for the signature at every call, and working it out costs more than a small kernel.
    _function.forward.__signature__ = inspect.signature(_function.forward)


def first_derivative(
    g: Tensor, x: Tensor, weight: Tensor, code: Tensor, eps: float, slope: float, pool: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`TasksNormGrad` in PyTorch: csrc/README.md."""
    over = (-4, -2, -1)
    variance, mean = torch.var_mean(x, over, correction=0, keepdim=True)
    rstd = (variance + eps).rsqrt()
    n, u = (x - mean) * rstd, spread(g, code, x.shape[-2], x.shape[-1], slope, pool)
    apart = u - u.mean(over, keepdim=True) - n * (u * n).mean(over, keepdim=True)
    return weight[..., None, :, None, None] * rstd * apart, (u * n).sum(over), u.sum(over)


def spread(g: Tensor, code: Tensor, height: int, width: int, slope: float, pool: int) -> Tensor:
    """The outputs' gradient at the elements that they are, zeros elsewhere: `[T?, N, C, height, width]`."""
    g = torch.where(code & 4 != 0, g, g * slope)
    if pool == 1:
        return g
    places = torch.arange(4, device=g.device).view(2, 1, 2)  # row, -, column
    cells = torch.where((code & 3)[..., None, :, None] == places, g[..., None, :, None], 0.0)
    rows, columns = 2 * g.shape[-2], 2 * g.shape[-1]
    return F.pad(cells.flatten(-4, -3).flatten(-2), (0, width - columns, 0, height - rows))


def _folded(operands, dims, batch: int, ranks: tuple[int, ...]) -> list[Tensor]:
    """The mapped axis as task axis, joined with one already there."""
    first = [t.expand(batch, *t.shape) if d is None else t.movedim(d, 0) for t, d in zip(operands, dims, strict=False)]
    return [t.flatten(0, t.dim() - rank) for t, rank in zip(first, ranks, strict=True)]


def _unfolded(results: tuple[Tensor, ...], x: Tensor, dim: int | None, batch: int) -> tuple[tuple[Tensor, ...], tuple]:
    nested = x.dim() - (dim is not None) == 5
    return tuple(t.unflatten(0, (batch, -1)) if nested else t for t in results), (0,) * len(results)
