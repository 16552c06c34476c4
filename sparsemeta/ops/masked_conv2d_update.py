"""A first-order inner step on the weights of a masked convolution, whose gradient need not exist in memory."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import Function

from .. import backends
from ..pattern import Pattern
from .conv import Conv, IntPair, check_operands
from .masked_conv2d import WeightGrad


def masked_conv2d_update(
    values: Tensor,
    g: Tensor,
    x: Tensor,
    pattern: Pattern,
    lr: float,
    stride: IntPair = 1,
    padding: IntPair | str = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    backend: str | None = None,
) -> Tensor:
    """`values - lr * gradient`, the gradient of `masked_conv2d` in `values` where that of its output is `g`.

    As in first-order MAML (Finn et al. 2017, arXiv 1703.03400, section 5.2) the gradient is a constant: the result has
    the derivative 1 in `values` and none in `g` and `x`. Backend `"cuda"` writes the new values straight from the sums.

    Args:
        values: `[nnz]` or, with tasks, `[T, nnz]`.
        g: `[N, O, H_out, W_out]` or `[T, N, O, H_out, W_out]`.
        x: `[N, C, H, W]` or `[T, N, C, H, W]`, the input of the convolution.
        pattern, stride, padding, dilation, groups, backend: as in `masked_conv2d`.
        lr: rate of the step.

    Returns:
        New values, of the shape of `values`.

    Raises:
        ValueError: operands that do not belong together, or an unknown backend.
        RuntimeError: the named backend cannot run here; the reasons are listed.
    """
    chosen = backends.select(backend, x, values, g)
    conv = Conv.make(pattern, stride, padding, dilation, groups, chosen)
    check_operands(x, values, None, conv)
    wanted = (*values.shape[:-1], x.shape[-4], *conv.output_size(x))
    if x.dim() != values.dim() + 3 or g.shape != wanted:
        raise ValueError(
            f"expected g of shape {wanted} and x with the task axis of values, got {tuple(g.shape)} and "
            f"{tuple(x.shape)}; g is the gradient of the output of masked_conv2d(x, values, ...)"
        )
    return Update.apply(values, g, x, float(lr), conv)


class Update(Function):
    """`values, g, x -> values - lr * gradient`, with a gradient that is constant."""

    @staticmethod
    def forward(ctx, values, g, x, lr, conv):
        if conv.backend == "cuda" and not any(t.is_neg() for t in (values, g, x)):
            return backends.cuda.masked_conv2d_update(values, g, x, lr, conv)
        return values - lr * _gradient(values, g, x, conv)

    @staticmethod
    def backward(ctx, v):
        return v, None, None, None, None


def _gradient(values: Tensor, g: Tensor, x: Tensor, conv: Conv) -> Tensor:
    if conv.backend != "dense":
        return WeightGrad.call(g, x, conv)
    with torch.enable_grad():
        at = values.detach().requires_grad_()
        [gradient] = torch.autograd.grad(backends.dense.masked_conv2d(x, at, None, conv), at, g)
    return gradient
