"""How `norm_act_pool` is computed and differentiated.

A branch is what is normalised and summed: `x, weight, mean, 1 / deviation`, the last two None where they are those of
`x`, all three where `x` is added as it is. Its derivatives know of another branch by `code` alone.
"""

from __future__ import annotations

import inspect

import torch
from torch import Tensor
from torch.autograd import Function

from .. import backends
from .norm_act_pool_formula import Scatter, channels, second_derivative, tasks


class NormActPool(Function):
    """`bias` and one or two branches `-> y, code`, and the statistics of each; `code`: which elements were selected."""

    @staticmethod
    def forward(bias, eps, slope, pool, *branches):
        return backends.kernels("cpu").norm_act_pool(bias, eps, slope, pool, *branches)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, ctx.eps, ctx.slope, ctx.pool, *branches = inputs
        _, code, *statistics = output
        ctx.given, ctx.size = [mean is not None for mean in branches[2::4]], branches[0].shape[2:]
        ctx.mark_non_differentiable(code, *statistics)
        ctx.set_materialize_grads(False)
        saved = [*branches[:2], *statistics[:2]]
        if branches[5:] and branches[5] is not None:
            saved += *branches[4:6], *statistics[2:]
        ctx.save_for_backward(code, *saved)

    @staticmethod
    def backward(ctx, g, *_):
        code, *saved = ctx.saved_tensors
        first, *second = ctx.given
        grads = [None] * (4 + 4 * len(ctx.given))
        if g is None:
            return tuple(grads)
        rest = ctx.eps, ctx.slope, ctx.pool
        grads[4], grads[5], grads[0] = NormActPoolGrad.apply(g, code, *saved[:4], first, *rest)
        if any(ctx.needs_input_grad[8:10]) and len(saved) > 4:
            grads[8], grads[9], _ = NormActPoolGrad.apply(g, code, *saved[4:], *second, *rest)
        elif any(ctx.needs_input_grad[8:10]):
            grads[8] = Scatter.apply(g, code, ctx.size, ctx.slope, ctx.pool)
        return tuple(grads)

    @staticmethod
    def vmap(info, in_dims, bias, eps, slope, pool, *branches):
        batch = info.batch_size
        bias, branches = _row(bias, in_dims[0], batch), _branches(branches, in_dims[4:], batch)
        y, code, *statistics = NormActPool.apply(bias, eps, slope, pool, *branches)
        output = tasks(y, batch), tasks(code, batch), *(t.view(batch, -1) for t in statistics)
        return output, (0,) * len(output)


class NormActPoolGrad(Function):
    """`g, code` and a branch `->` gradients of its x and weight, and of bias.

    Unless they are `given`, the statistics are functions of x, and no operands.
    """

    @staticmethod
    def forward(g, code, x, weight, mean, rstd, given, eps, slope, pool):
        return backends.kernels("cpu").norm_act_pool_grad(g, code, x, weight, mean, rstd, given, slope, pool)

    @staticmethod
    def setup_context(ctx, inputs, output):
        *saved, ctx.given, ctx.eps, ctx.slope, ctx.pool = inputs
        ctx.save_for_backward(*saved)

    @staticmethod
    def backward(ctx, v, v_weight, v_bias):
        cotangents, saved = (v, v_weight, v_bias), ctx.saved_tensors
        if torch.is_grad_enabled():  # a third derivative is wanted
            to_g, to_x, to_weight = second_derivative(*cotangents, *saved, ctx.given, ctx.eps, ctx.slope, ctx.pool)
        else:
            kernel = backends.kernels("cpu").norm_act_pool_grad_grad
            to_g, to_x, to_weight = kernel(*cotangents, *saved, ctx.given, ctx.slope, ctx.pool)
        return to_g, None, to_x, to_weight, *(None,) * 6

    @staticmethod
    def vmap(info, in_dims, g, code, *rest):
        batch = info.batch_size
        g, code = channels(g, in_dims[0], batch), channels(code, in_dims[1], batch)
        grads = NormActPoolGrad.apply(g, code, *_branches(rest[:4], in_dims[2:6], batch), *rest[4:])
        return (tasks(grads[0], batch), grads[1].view(batch, -1), grads[2].view(batch, -1)), (0, 0, 0)


for _function in (NormActPool, NormActPoolGrad):
    # Function.apply asks for the signature at every call, and working it out costs more than a small kernel.
    _function.forward.__signature__ = inspect.signature(_function.forward)


def _branches(branches: tuple[Tensor | None, ...], dims: tuple[int | None, ...], batch: int) -> list[Tensor | None]:
    """Tasks as further channels."""
    flat = (channels if i % 4 == 0 else _row for i in range(len(branches)))
    return [None if t is None else f(t, dim, batch) for f, t, dim in zip(flat, branches, dims, strict=True)]


def _row(t: Tensor, dim: int | None, batch: int) -> Tensor:
    return (t.expand(batch, -1) if dim is None else t.movedim(dim, 0)).flatten()
