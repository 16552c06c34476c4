"""Batch norm on batch statistics, (leaky) ReLU and max-pooling in one pass, with derivatives of every order.

Between the convolutions of a few-shot network these three cost more than a sparse convolution does, and their double
backward in PyTorch more still. First and second derivatives are kernels; a third is PyTorch's, of the same formula.
"""

from __future__ import annotations

import inspect

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from .. import backends
from .norm_act_pool_tasks import TasksNorm


def norm_act_pool(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5, slope: float = 0.0, pool: int = 1,
    backend: str | None = None,
) -> Tensor:
    """Batch norm with the statistics of `x`, activation, and max-pooling.

    Equivalent to `F.max_pool2d(F.leaky_relu(F.batch_norm(x, None, None, weight, bias, True, eps=eps), slope), pool)`.

    Args:
        x: `[N, C, H, W]`.
        weight, bias: `[C]`, gamma and beta.
        eps: added to the variance.
        slope: of the activation for negative inputs; 0 is ReLU, 1 none.
        pool: 2, or 1 for no pooling.
        backend: `"dense"`, `"cpu"`, `"triton"`, or `None` / `"auto"` for the fastest that can run.

    Returns:
        `[N, C, H // pool, W // pool]`.

    Raises:
        ValueError: shapes that do not belong together, fewer than two values for each channel, another `pool`.
        RuntimeError: the named backend cannot run here; the reasons are listed.
    """
    _check(x, weight, bias, pool)
    chosen = backends.select(backend, x, weight, bias)
    chosen = backends.choice.norm_act_pool_backend(x, pool) if chosen == "auto" else chosen
    if chosen == "dense" or torch.compiler.is_compiling():
        return definition(x, weight, bias, eps, slope, pool)
    backends.check_has(chosen, "norm_act_pool")
    if chosen == "triton":
        return TasksNorm.apply(x, weight, bias, eps, slope, pool, chosen)[0]
    return NormActPool.apply(x, weight, bias, eps, slope, pool)[0]


def definition(x: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float, pool: int) -> Tensor:
    """`norm_act_pool` in plain PyTorch."""
    z = F.batch_norm(x, None, None, weight, bias, True, eps=eps)
    z = F.relu(z) if slope == 0 else F.leaky_relu(z, slope)
    return z if pool == 1 else F.max_pool2d(z, pool)


class NormActPool(Function):
    """`x, weight, bias -> y`, and what the derivatives need: mean, 1 / deviation, and which elements were selected."""

    @staticmethod
    def forward(x, weight, bias, eps, slope, pool):
        return backends.kernels("cpu").norm_act_pool(x, weight, bias, eps, slope, pool)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, weight, _, ctx.eps, ctx.slope, ctx.pool = inputs
        _, *statistics = output
        ctx.mark_non_differentiable(*statistics)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight, *statistics)

    @staticmethod
    def backward(ctx, g, *_):
        if g is None:
            return (None,) * 6
        return *NormActPoolGrad.apply(g, *ctx.saved_tensors, ctx.eps, ctx.slope, ctx.pool), None, None, None

    @staticmethod
    def vmap(info, in_dims, x, weight, bias, eps, slope, pool):
        batch = info.batch_size
        x = _channels(x, in_dims[0], batch)
        weight, bias = _row(weight, in_dims[1], batch), _row(bias, in_dims[2], batch)
        y, mean, rstd, code = NormActPool.apply(x, weight, bias, eps, slope, pool)
        return (_tasks(y, batch), mean.view(batch, -1), rstd.view(batch, -1), _tasks(code, batch)), (0, 0, 0, 0)


class NormActPoolGrad(Function):
    """`g, x, weight -> ` gradients of x, weight and bias. The statistics are functions of x, not operands."""

    @staticmethod
    def forward(g, x, weight, mean, rstd, code, eps, slope, pool):
        return backends.kernels("cpu").norm_act_pool_grad(g, x, weight, mean, rstd, code, slope, pool)

    @staticmethod
    def setup_context(ctx, inputs, output):
        *saved, ctx.eps, ctx.slope, ctx.pool = inputs
        ctx.save_for_backward(*saved)

    @staticmethod
    def backward(ctx, v, v_weight, v_bias):
        g, x, weight, mean, rstd, code = ctx.saved_tensors
        rest = (None,) * 6
        if torch.is_grad_enabled():  # a third derivative is wanted
            return *second_derivative(v, v_weight, v_bias, g, x, weight, code, ctx.eps, ctx.slope, ctx.pool), *rest
        kernel = backends.kernels("cpu").norm_act_pool_grad_grad
        return *kernel(v, v_weight, v_bias, g, x, weight, mean, rstd, code, ctx.slope, ctx.pool), *rest

    @staticmethod
    def vmap(info, in_dims, g, x, weight, mean, rstd, code, eps, slope, pool):
        batch = info.batch_size
        images = [_channels(t, d, batch) for t, d in zip((g, x, code), (*in_dims[:2], in_dims[5]), strict=True)]
        rows = [_row(t, d, batch) for t, d in zip((weight, mean, rstd), in_dims[2:5], strict=True)]
        grads = NormActPoolGrad.apply(*images[:2], *rows, images[2], eps, slope, pool)
        return (_tasks(grads[0], batch), grads[1].view(batch, -1), grads[2].view(batch, -1)), (0, 0, 0)


for _function in (NormActPool, NormActPoolGrad):
    # Function.apply asks for the signature at every call, and working it out costs more than a small kernel.
    _function.forward.__signature__ = inspect.signature(_function.forward)


def second_derivative(
    v: Tensor, v_weight: Tensor, v_bias: Tensor, g: Tensor, x: Tensor, weight: Tensor, code: Tensor, eps: float,
    slope: float, pool: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Derivative of `NormActPoolGrad` against `v, v_weight, v_bias`, in `g, x, weight`: csrc/README.md, in PyTorch.

    With Q u = u - mean(u) - n mean(u n) for the normalised input n, the gradient is weight rstd Q u. A selection of
    elements is linear, so every derivative of this is one of batch norm.
    """
    over, column = (0, 2, 3), (1, -1, 1, 1)
    variance, mean = torch.var_mean(x, over, correction=0, keepdim=True)
    rstd, weight = (variance + eps).rsqrt(), weight.view(column)
    n = (x - mean) * rstd
    u = scatter(g, code, x.shape, slope, pool)

    def q(t: Tensor) -> Tensor:
        return t - t.mean(over, keepdim=True) - n * (t * n).mean(over, keepdim=True)

    inner = (v * q(u)).mean(over, keepdim=True)
    mixed = (u * n).mean(over, keepdim=True) * q(v) + (v * n).mean(over, keepdim=True) * q(u)
    to_x = -weight * rstd**2 * (n * inner + mixed) + v_weight.view(column) * rstd * q(u)
    to_u = weight * rstd * q(v) + v_weight.view(column) * n + v_bias.view(column)
    return gather(to_u, code, slope, pool), to_x, (rstd * inner).flatten() * (x.numel() // x.shape[1])


def _places(code: Tensor, width: int, pool: int) -> Tensor:
    """Flat position in its plane of the element that each output selects."""
    rows = torch.arange(code.shape[-2], device=code.device).view(-1, 1) * pool
    columns = torch.arange(code.shape[-1], device=code.device) * pool
    inside = (code & 3).long()
    return ((rows + inside // 2) * width + columns + inside % 2).flatten(-2)


def _factor(code: Tensor, like: Tensor, slope: float) -> Tensor:
    return slope + (1 - slope) * (code & 4 != 0).to(like.dtype)


def gather(t: Tensor, code: Tensor, slope: float, pool: int) -> Tensor:
    """What the outputs select of `t` `[N, C, H, W]`."""
    return t.flatten(-2).gather(-1, _places(code, t.shape[-1], pool)).view(code.shape) * _factor(code, t, slope)


def scatter(g: Tensor, code: Tensor, shape: torch.Size, slope: float, pool: int) -> Tensor:
    """The adjoint of `gather`."""
    planes = g.new_zeros(*shape[:2], shape[2] * shape[3])
    selected = (g * _factor(code, g, slope)).flatten(-2)
    return planes.scatter_add(-1, _places(code, shape[-1], pool), selected).view(shape)


def _check(x: Tensor, weight: Tensor, bias: Tensor, pool: int) -> None:
    if x.dim() != 4 or weight.shape != x.shape[1:2] or bias.shape != weight.shape:
        raise ValueError(
            f"expected x [N, C, H, W] with weight and bias [C], got x {tuple(x.shape)}, weight {tuple(weight.shape)} "
            f"and bias {tuple(bias.shape)}; give one weight and bias for each channel"
        )
    if pool not in (1, 2) or min(x.shape[2:]) < pool:
        raise ValueError(f"expected pool to be 1 or 2 and not larger than the image {tuple(x.shape[2:])}, got {pool}")
    if x.numel() <= x.shape[1]:
        raise ValueError(f"expected more than one value for each channel, got x {tuple(x.shape)}; give a larger batch")


def _channels(t: Tensor, dim: int | None, batch: int) -> Tensor:
    """Tasks as further channels, `[N, T * C, H, W]`: every channel has its own statistics, so this is exact."""
    t = t.expand(batch, *t.shape) if dim is None else t.movedim(dim, 0)
    return t.movedim(0, 1).flatten(1, 2)


def _row(t: Tensor, dim: int | None, batch: int) -> Tensor:
    return (t.expand(batch, -1) if dim is None else t.movedim(dim, 0)).flatten()


def _tasks(t: Tensor, batch: int) -> Tensor:
    return t.unflatten(1, (batch, -1)).movedim(1, 0)
