"""The three partners as `torch.library` operators, so that first-order `torch.compile(fullgraph=True)` sees them.

Eager code takes the autograd functions of `masked_conv2d.py`. The backward formulas here are those same ones; only
their partners are the operators.
"""

from __future__ import annotations

import torch

from .. import backends
from .conv import Conv
from .masked_conv2d import InputGrad, MaskedConv2d, WeightGrad

_CONV = "int pattern, int[] stride, int[] padding, int[] dilation, int groups, str backend"


def _operator(function, name: str, arguments: str, fake, partners) -> None:
    """Register `name` with the kernel of that name, its shape function, and the backward of `function`."""
    operands = arguments.count(",") + 1
    qualified = f"sparsemeta::{name}"

    def kernel(*inputs):
        conv = Conv.from_flat(*inputs[operands:])
        return getattr(backends.kernels(conv.backend), name)(*inputs[:operands], conv)

    def setup_context(ctx, inputs, output):
        function.setup_context(ctx, (*inputs[:operands], Conv.from_flat(*inputs[operands:])), output)
        ctx.partners = partners

    def backward(ctx, grad):
        grads = function.backward(ctx, grad)
        return *grads[:-1], *(None,) * (1 + _CONV.count(","))

    torch.library.define(qualified, f"({arguments}, {_CONV}) -> Tensor")
    torch.library.impl(qualified, ("CPU", "CUDA"))(kernel)
    torch.library.register_fake(qualified)(lambda *inputs: fake(*inputs[:operands], Conv.from_flat(*inputs[operands:])))
    torch.library.register_autograd(qualified, backward, setup_context=setup_context)


def _forward(x, values, bias, conv):
    return torch.ops.sparsemeta.masked_conv2d(x, values, bias, *conv.flat())


def _input_grad(g, values, height, width, conv):
    return torch.ops.sparsemeta.masked_conv2d_input_grad(g, values, height, width, *conv.flat())


def _weight_grad(g, x, conv):
    return torch.ops.sparsemeta.masked_conv2d_weight_grad(g, x, *conv.flat())


_operator(
    MaskedConv2d,
    "masked_conv2d",
    "Tensor x, Tensor values, Tensor? bias",
    lambda x, values, bias, conv: x.new_empty(*x.shape[:-3], *conv.output_size(x)),
    (_input_grad, _weight_grad),
)
_operator(
    InputGrad,
    "masked_conv2d_input_grad",
    "Tensor g, Tensor values, SymInt height, SymInt width",
    lambda g, values, height, width, conv: g.new_empty(*g.shape[:-3], conv.in_channels, height, width),
    (_forward, _weight_grad),
)
_operator(
    WeightGrad,
    "masked_conv2d_weight_grad",
    "Tensor g, Tensor x",
    lambda g, x, conv: g.new_empty(*g.shape[:-4], conv.pattern.nnz),
    (_forward, _input_grad),
)
