"""The three partners of a masked convolution on the expanded weight: raw kernels, as those of `cpu` are.

What only PyTorch's dense code can gain from: the memory format, and for 1x1 convolutions a matrix product. Results are
contiguous, so what that costs is in the time that is measured.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
_NO_TRANSPOSE = False, [0, 0]  # `transposed` and `output_padding` of aten's convolution


def routes(conv) -> tuple[str, ...]:
    """Names of the dense routes that can run `conv`; each is a `route` of the functions below."""
    plain = (conv.stride, conv.padding, conv.groups, conv.pattern.shape[2:]) == ((1, 1), (0,) * 4, 1, (1, 1))
    return (*LAYOUTS, "matmul") if plain else tuple(LAYOUTS)


def masked_conv2d(x: Tensor, values: Tensor, bias: Tensor | None, conv, route: str) -> Tensor:
    """`[T?, N, C, H, W]`, `[T?, nnz]`, `[T?, O]` -> `[T?, N, O, H_out, W_out]`."""
    if route == "matmul":
        y = _matrix(values, conv) @ x.flatten(-2)
        y = y if bias is None else y.add_(bias[..., None] if bias.dim() == 1 else bias[:, None, :, None])
        return y.unflatten(-1, x.shape[-2:])
    if values.dim() == 2:
        biases = [None] * len(values) if bias is None else bias.expand(len(values), -1)
        each = zip(x, values, biases, strict=True)
        return torch.stack([masked_conv2d(*task, conv, route) for task in each])
    padding, extra = _padding(conv)
    x, weight = (_laid(t, route) for t in (_padded(x, extra), _weight(values, conv)))
    return _result(torch.conv2d(x, weight, bias, conv.stride, padding, conv.dilation, conv.groups), route)


def masked_conv2d_input_grad(g: Tensor, values: Tensor, height: int, width: int, conv, route: str) -> Tensor:
    """`[T?, N, O, H_out, W_out]`, `[T?, nnz]` -> `[T?, N, C, height, width]`."""
    if route == "matmul":
        return (_matrix(values, conv).mT @ g.flatten(-2)).unflatten(-1, (height, width))
    if values.dim() == 2:
        each = zip(g, values, strict=True)
        return torch.stack([masked_conv2d_input_grad(*task, height, width, conv, route) for task in each])
    padding, extra = _padding(conv)
    left, right, top, bottom = extra
    x = _sized(g, (len(g), conv.in_channels, height + top + bottom, width + left + right), route)
    grad = _backward(_laid(g, route), x, _laid(_weight(values, conv), route), padding, conv, [True, False, False])[0]
    return _result(_padded(grad, tuple(-n for n in extra)), route)


def masked_conv2d_weight_grad(g: Tensor, x: Tensor, conv, route: str) -> Tensor:
    """`[T?, N, O, H_out, W_out]`, `[T?, N, C, H, W]` -> `[T?, nnz]`: the kept ones of the dense gradient."""
    if route == "matmul":
        weight = _rows(g) @ _rows(x).mT
        return conv.pattern.compress(weight[..., None, None])
    if x.dim() == 5:
        return torch.stack([masked_conv2d_weight_grad(*task, conv, route) for task in zip(g, x, strict=True)])
    padding, extra = _padding(conv)
    weight = _sized(x, conv.pattern.shape, route)
    operands = _laid(g, route), _laid(_padded(x, extra), route), weight
    grad = _backward(*operands, padding, conv, [False, True, False])[1]
    return conv.pattern.compress(grad)


def _weight(values: Tensor, conv) -> Tensor:
    """`pattern.expand`, some times faster because nothing is differentiated here."""
    flat, index = values.new_zeros(*values.shape[:-1], conv.pattern.numel), conv.pattern.index
    return flat.scatter_(-1, index.expand_as(values), values).unflatten(-1, conv.pattern.shape)


def _matrix(values: Tensor, conv) -> Tensor:
    """`[O, C]`, or `[T, 1, O, C]`, of a 1x1 convolution."""
    weight = _weight(values, conv).flatten(-3)
    return weight.unsqueeze(1) if values.dim() == 2 else weight


def _rows(t: Tensor) -> Tensor:
    """`[T?, N, C, H, W] -> [T?, C, N * H * W]`."""
    return t.transpose(-4, -3).flatten(-3)


def _laid(t: Tensor, route: str) -> Tensor:
    """`[T?, N, C, H, W]` with its images in that memory format; `"as_is"` in their own."""
    if route == "as_is":
        return t
    return t.flatten(0, -4).contiguous(memory_format=LAYOUTS[route]).unflatten(0, t.shape[:-3])


def _sized(like: Tensor, shape: Sequence[int], route: str) -> Tensor:
    """An operand of which only the size matters to PyTorch and, for `"as_is"`, the memory format."""
    if route == "as_is" and like.stride(1) == 1:
        return torch.empty(*shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)
    return like.new_empty(1).expand(*shape)


def _result(t: Tensor, route: str) -> Tensor:
    return t if route == "as_is" else t.contiguous()


def _padded(t: Tensor, extra: tuple[int, ...]) -> Tensor:
    return F.pad(t, extra) if any(extra) else t  # PyTorch would copy it


def _padding(conv) -> tuple[list[int], tuple[int, int, int, int]]:
    """What both sides have in common (height, width), and what is left for (left, right, top, bottom)."""
    top, bottom, left, right = conv.padding
    height, width = min(top, bottom), min(left, right)
    return [height, width], (left - width, right - width, top - height, bottom - height)


def _backward(g: Tensor, x: Tensor, weight: Tensor, padding: list[int], conv, wanted: list[bool]) -> list[Tensor]:
    rest = conv.stride, padding, conv.dilation, *_NO_TRANSPOSE, conv.groups, wanted
    return torch.ops.aten.convolution_backward(g, x, weight, None, *rest)
