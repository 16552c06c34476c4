"""Masked 2-D convolution: the public function, and the three linear partners that close it under differentiation.

`<g, conv(x, w)>` is linear in each of `x`, `w` and `g`. Forward, input gradient and weight gradient are its three
partial derivatives, so the backward of each is the other two with operands swapped, and no order of derivative needs
another kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from .. import backends
from ..pattern import Pattern
from .conv import Conv, IntPair, check_operands, given


def masked_conv2d(
    x: Tensor,
    values: Tensor,
    pattern: Pattern,
    bias: Tensor | None = None,
    stride: IntPair = 1,
    padding: IntPair | str = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    backend: str | None = None,
) -> Tensor:
    """Convolution with a weight of which only `pattern` is kept.

    Equivalent to `F.conv2d(x, pattern.expand(values), bias, stride, padding, dilation, groups)`, with derivatives of
    every order, under `torch.func` and, first order, `torch.compile(fullgraph=True)`.

    Args:
        x: `[N, C, H, W]`, any strides; or `[T, N, C, H, W]`, one batch for each task.
        values: `[nnz]` kept weights; or `[T, nnz]`, one row for each task over the one pattern.
        pattern: kept positions of a weight `(O, C / groups, kh, kw)`.
        bias: `[O]` or, with tasks, `[T, O]`.
        stride, padding, dilation, groups: as in `F.conv2d`; padding also `"same"` or `"valid"`.
        backend: `"dense"`, `"cpu"`, `"triton"`, `"cuda"`, or `None` / `"auto"` for the fastest that can run.

    Returns:
        `[N, O, H_out, W_out]`, or `[T, N, O, H_out, W_out]` with tasks.

    Raises:
        ValueError: operands that do not belong together, or an unknown backend.
        RuntimeError: the named backend cannot run here; the reasons are listed.
    """
    chosen = backends.select(backend, *given(x, values, bias))
    conv = Conv.make(pattern, stride, padding, dilation, groups, chosen)
    backends.check_conv(conv)
    check_operands(x, values, bias, conv)
    conv.output_size(x)
    if values.dim() == 2 and x.dim() == 4:
        x = x.expand(len(values), *x.shape)
    return run(x, values, bias, conv)


def run(x: Tensor, values: Tensor, bias: Tensor | None, conv: Conv) -> Tensor:
    """`masked_conv2d` on operands already checked."""
    if conv.backend == "dense":
        return backends.dense.masked_conv2d(x, values, bias, conv)
    if torch.compiler.is_compiling():
        return torch.ops.sparsemeta.masked_conv2d(x, values, bias, *conv.flat())
    return MaskedConv2d.call(x, values, bias, conv)


def run_kernel(name: str, *inputs):
    """The backend's kernel on `inputs`, the last of which is the `Conv`.

    Kernels take addresses. What has none goes through the operator: PyTorch's dispatcher then makes plain memory of it
    (a pending negation, zeros that are only promised, the batches of `is_grads_batched=True`) or records the call.
    """
    *operands, conv = inputs
    if torch._C._len_torch_dispatch_stack() or not all(_is_plain(t) for t in operands if isinstance(t, Tensor)):
        return getattr(torch.ops.sparsemeta, name)(*operands, *conv.flat())
    return getattr(backends.kernels(conv.backend), name)(*operands, conv)


def _is_plain(t: Tensor) -> bool:
    return torch._C._has_storage(t) and not t.is_neg() and not t._is_zerotensor()


class Partner(Function):
    """One of the three."""

    @classmethod
    def call(cls, *inputs):
        """`apply`, which takes longer than a small kernel, without what these operands do not need of it."""
        tensors = [t for t in inputs if isinstance(t, Tensor)]
        if torch._C._are_functorch_transforms_active() or not all(_is_plain(t) for t in tensors):
            return cls.apply(*inputs)
        if forward_ad._current_level < 0 and not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors)):
            return cls.forward(*inputs)  # nobody differentiates the result
        return super(Function, cls).apply(*inputs)  # the rest of `apply` binds a signature and unwraps


class MaskedConv2d(Partner):
    """Forward: `x, values, bias -> y`."""

    @staticmethod
    def forward(x, values, bias, conv):
        return run_kernel("masked_conv2d", x, values, bias, conv)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, values, bias, ctx.conv = inputs
        ctx.save_for_backward(x, values)
        ctx.save_for_forward(x, values)
        ctx.bias_dim = 0 if bias is None else bias.dim()
        ctx.output_shape = output.shape
        ctx.partners = InputGrad.call, WeightGrad.call

    @staticmethod
    def backward(ctx, g):
        x, values = ctx.saved_tensors
        input_grad, weight_grad = ctx.partners
        need_x, need_values, need_bias = (wanted(ctx, i) for i in range(3))
        # x may still be in cache from the forward, and the input gradient will be for the layer before: it comes last.
        values_grad = weight_grad(g, x, ctx.conv) if need_values else None
        return (
            input_grad(g, values, x.shape[-2], x.shape[-1], ctx.conv) if need_x else None,
            values_grad,
            _bias_grad(g, ctx.bias_dim) if need_bias else None,
            None,
        )

    @staticmethod
    def jvp(ctx, dx, dvalues, dbias, _):
        _refuse_nested_forward_mode()
        x, values = ctx.saved_tensors
        parts = [MaskedConv2d.apply(dx, values, None, ctx.conv)] if dx is not None else []
        parts += [MaskedConv2d.apply(x, dvalues, None, ctx.conv)] if dvalues is not None else []
        parts += [dbias[..., None, :, None, None].expand(ctx.output_shape)] if dbias is not None else []
        return sum(parts[1:], parts[0])

    @staticmethod
    def vmap(info, in_dims, x, values, bias, conv):
        batch = info.batch_size
        if in_dims[1] is None and in_dims[2] is None:
            return _over_images(lambda t: MaskedConv2d.apply(t, values, bias, conv), x, in_dims[0], batch)
        tasked = values.dim() - (in_dims[1] is not None) == 2
        values = _fold(values, in_dims[1], batch, 2)
        bias = None if bias is None else _bias_rows(bias, in_dims[2], batch, len(values))
        y = MaskedConv2d.apply(_fold(x, in_dims[0], batch, 5), values, bias, conv)
        return y.unflatten(0, (batch, -1)) if tasked else y, 0


class InputGrad(Partner):
    """Input gradient: `g, values -> x`, the transposed convolution."""

    @staticmethod
    def forward(g, values, height, width, conv):
        return run_kernel("masked_conv2d_input_grad", g, values, height, width, conv)

    @staticmethod
    def setup_context(ctx, inputs, output):
        g, values, ctx.height, ctx.width, ctx.conv = inputs
        ctx.save_for_backward(g, values)
        ctx.save_for_forward(g, values)
        ctx.partners = MaskedConv2d.call, WeightGrad.call

    @staticmethod
    def backward(ctx, dx):
        g, values = ctx.saved_tensors
        forward, weight_grad = ctx.partners
        need_g, need_values = wanted(ctx, 0), wanted(ctx, 1)
        return (
            forward(dx, values, None, ctx.conv) if need_g else None,
            weight_grad(g, dx, ctx.conv) if need_values else None,
            None,
            None,
            None,
        )

    @staticmethod
    def jvp(ctx, dg, dvalues, *_):
        _refuse_nested_forward_mode()
        g, values = ctx.saved_tensors
        rest = ctx.height, ctx.width, ctx.conv
        parts = [InputGrad.apply(dg, values, *rest)] if dg is not None else []
        parts += [InputGrad.apply(g, dvalues, *rest)] if dvalues is not None else []
        return sum(parts[1:], parts[0])

    @staticmethod
    def vmap(info, in_dims, g, values, height, width, conv):
        batch = info.batch_size
        if in_dims[1] is None:
            return _over_images(lambda t: InputGrad.apply(t, values, height, width, conv), g, in_dims[0], batch)
        tasked = values.dim() == 3
        x = InputGrad.apply(_fold(g, in_dims[0], batch, 5), _fold(values, in_dims[1], batch, 2), height, width, conv)
        return x.unflatten(0, (batch, -1)) if tasked else x, 0


class WeightGrad(Partner):
    """Weight gradient at the kept positions: `g, x -> values`."""

    @staticmethod
    def forward(g, x, conv):
        return run_kernel("masked_conv2d_weight_grad", g, x, conv)

    @staticmethod
    def setup_context(ctx, inputs, output):
        g, x, ctx.conv = inputs
        ctx.save_for_backward(g, x)
        ctx.save_for_forward(g, x)
        ctx.partners = MaskedConv2d.call, InputGrad.call

    @staticmethod
    def backward(ctx, dvalues):
        g, x = ctx.saved_tensors
        forward, input_grad = ctx.partners
        need_g, need_x = wanted(ctx, 0), wanted(ctx, 1)
        return (
            forward(x, dvalues, None, ctx.conv) if need_g else None,
            input_grad(g, dvalues, x.shape[-2], x.shape[-1], ctx.conv) if need_x else None,
            None,
        )

    @staticmethod
    def jvp(ctx, dg, dx, _):
        _refuse_nested_forward_mode()
        g, x = ctx.saved_tensors
        parts = [WeightGrad.apply(dg, x, ctx.conv)] if dg is not None else []
        parts += [WeightGrad.apply(g, dx, ctx.conv)] if dx is not None else []
        return sum(parts[1:], parts[0])

    @staticmethod
    def vmap(info, in_dims, g, x, conv):
        batch = info.batch_size
        tasked = g.dim() - (in_dims[0] is not None) == 5
        values = WeightGrad.apply(_fold(g, in_dims[0], batch, 5), _fold(x, in_dims[1], batch, 5), conv)
        return values.unflatten(0, (batch, -1)) if tasked else values, 0


def wanted(ctx, index: int) -> bool:
    """Whether anybody uses the gradient of that operand: it needs one, and `autograd.grad` was asked for it.

    PyTorch tells its own operators; a Function has to ask.
    """
    if not ctx.needs_input_grad[index]:
        return False
    try:
        return torch._C._will_engine_execute_node(ctx.next_functions[index][0])
    except RuntimeError:  # its answer for a leaf that `autograd.grad` was asked for
        return True


def _refuse_nested_forward_mode() -> None:
    """PyTorch turns forward mode off inside the `jvp` of a Function, so that an outer one would silently lose terms."""
    functorch = torch._C._functorch
    modes = [level.key() for level in functorch.get_interpreter_stack() or ()]
    if modes.count(functorch.TransformType.Jvp) > 1:
        raise NotImplementedError(
            "expected at most one forward-mode derivative (jvp, jacfwd) around a masked operation, got one inside "
            'another; use reverse mode (grad, vjp, jacrev) for one of them, or backend="dense"'
        )


def _bias_grad(g: Tensor, bias_dim: int) -> Tensor:
    """Sum over everything but the channel, and the task where each task has its own bias."""
    axes = (-4, -2, -1) if bias_dim == 2 or g.dim() == 4 else (0, 1, 3, 4)
    return g.sum(axes)


def _bias_rows(bias: Tensor, dim: int | None, batch: int, rows: int) -> Tensor:
    """One row of bias for each of the `rows` tasks that a map over `batch` makes."""
    bias = _front(bias, dim, batch)
    if bias.dim() == 2:
        bias = bias.unsqueeze(1).expand(-1, rows // batch, -1)
    return bias.flatten(0, 1)


def _front(t: Tensor, dim: int | None, batch: int) -> Tensor:
    """The mapped axis first; an operand that is not mapped is the same for all."""
    return t.expand(batch, *t.shape) if dim is None else t.movedim(dim, 0)


def _fold(t: Tensor, dim: int | None, batch: int, rank: int) -> Tensor:
    """The mapped axis as task axis, joined with a task axis already there, so that `rank` axes remain."""
    t = _front(t, dim, batch)
    return t.flatten(0, 1) if t.dim() > rank else t


def _over_images(apply, t: Tensor, dim: int, batch: int) -> tuple[Tensor, int]:
    """One weight for the whole map: the mapped axis joins the images, one kernel call for all."""
    t = t.movedim(dim, -5)
    images = t.shape[-4]
    y = apply(t.flatten(-5, -4)).unflatten(-4, (batch, images))
    return y, y.dim() - 5
