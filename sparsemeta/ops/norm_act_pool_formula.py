"""What derivatives of `norm_act_pool` are made of: the selection of elements, and a second derivative in PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import Function

from .. import backends

OVER = (0, 2, 3)  # axes of which a channel has statistics


class Gather(Function):
    """What the outputs select of an image `[N, C, H, W]`, as `code` and `slope` say."""

    @staticmethod
    def forward(x, code, slope, pool):
        return backends.kernels("cpu").norm_act_pool_gather(x, code, slope, pool)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, code, ctx.slope, ctx.pool = inputs
        ctx.size = x.shape[2:]
        ctx.save_for_backward(code)

    @staticmethod
    def backward(ctx, g):
        return Scatter.apply(g, *ctx.saved_tensors, ctx.size, ctx.slope, ctx.pool), None, None, None

    @staticmethod
    def vmap(info, in_dims, x, code, slope, pool):
        x, code = (channels(t, dim, info.batch_size) for t, dim in zip((x, code), in_dims[:2], strict=True))
        return tasks(Gather.apply(x, code, slope, pool), info.batch_size), 0


class Scatter(Function):
    """The adjoint of `Gather`, to images of `size`, height and width."""

    @staticmethod
    def forward(g, code, size, slope, pool):
        return backends.kernels("cpu").norm_act_pool_scatter(g, code, size, slope, pool)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, code, _, ctx.slope, ctx.pool = inputs
        ctx.save_for_backward(code)

    @staticmethod
    def backward(ctx, v):
        return Gather.apply(v, *ctx.saved_tensors, ctx.slope, ctx.pool), None, None, None, None

    @staticmethod
    def vmap(info, in_dims, g, code, size, slope, pool):
        g, code = (channels(t, dim, info.batch_size) for t, dim in zip((g, code), in_dims[:2], strict=True))
        return tasks(Scatter.apply(g, code, size, slope, pool), info.batch_size), 0


def second_derivative(
    v: Tensor, v_weight: Tensor, v_bias: Tensor, g: Tensor, code: Tensor, x: Tensor, weight: Tensor, mean: Tensor,
    rstd: Tensor, given: bool, eps: float, slope: float, pool: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Derivative of `NormActPoolGrad` against `v, v_weight, v_bias`, in `g, x, weight`: csrc/README.md, in PyTorch.

    With Q u = u - mean(u) - n mean(u n) for the normalised input n, the gradient is weight rstd Q u; with given
    statistics Q u = u. A selection of elements is linear, so every derivative of this is one of batch norm.
    """
    column = (1, -1, 1, 1)
    weight, v_weight, v_bias = (t.view(column) for t in (weight, v_weight, v_bias))
    u = Scatter.apply(g, code, x.shape[2:], slope, pool)
    if given:
        mean, rstd = mean.view(column), rstd.view(column)
        to_u = weight * rstd * v + v_weight * (x - mean) * rstd + v_bias
        return Gather.apply(to_u, code, slope, pool), v_weight * rstd * u, (rstd * v * u).sum(OVER)
    variance, mean = torch.var_mean(x, OVER, correction=0, keepdim=True)
    rstd = (variance + eps).rsqrt()
    n = (x - mean) * rstd

    def q(t: Tensor) -> Tensor:
        return t - _mean(t) - n * _mean(t * n)

    inner = _mean(v * q(u))
    to_x = v_weight * rstd * q(u) - weight * rstd**2 * (n * inner + _mean(u * n) * q(v) + _mean(v * n) * q(u))
    to_u = weight * rstd * q(v) + v_weight * n + v_bias
    return Gather.apply(to_u, code, slope, pool), to_x, (rstd * inner).flatten() * (x.numel() // x.shape[1])


def _mean(t: Tensor) -> Tensor:
    return t.mean(OVER, keepdim=True)


def channels(t: Tensor, dim: int | None, batch: int) -> Tensor:
    """Tasks as further channels, which all have their own statistics: `[T, N, C, H, W]` -> `[N, T * C, H, W]`."""
    t = t.expand(batch, *t.shape) if dim is None else t.movedim(dim, 0)
    return t.movedim(0, 1).flatten(1, 2)


def tasks(t: Tensor, batch: int) -> Tensor:
    """The inverse of `channels`."""
    return t.unflatten(1, (batch, -1)).movedim(1, 0)
