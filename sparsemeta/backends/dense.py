"""Plain PyTorch on the expanded weight: the definition of every operation, and the backend that is always there."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def missing() -> list[str]:
    """Nothing is ever missing: this backend is PyTorch itself."""
    return []


def reasons(*tensors: Tensor) -> list[str]:
    """Nothing: it runs whatever PyTorch runs."""
    return []


def masked_conv2d(x: Tensor, values: Tensor, bias: Tensor | None, conv) -> Tensor:
    """`F.conv2d(x, pattern.expand(values), bias, ...)`, for every task where `values` is `[T, nnz]`."""
    if values.dim() == 2 and not len(values):  # an empty batch through a weight of zeros, so that there is a graph
        bias = bias.sum(0) if bias is not None and bias.dim() == 2 else bias
        return masked_conv2d(x.flatten(0, 1), values.sum(0), bias, conv).unflatten(0, x.shape[:2])
    if values.dim() == 2:
        return torch.stack(
            [
                masked_conv2d(x[t], values[t], bias[t] if bias is not None and bias.dim() == 2 else bias, conv)
                for t in range(len(values))
            ]
        )
    top, bottom, left, right = conv.padding
    padding = (min(top, bottom), min(left, right))
    if (top, left) != (bottom, right):  # "same" with an even kernel: F.conv2d pads both sides alike
        x = F.pad(x, (left - padding[1], right - padding[1], top - padding[0], bottom - padding[0]))
    weight = conv.pattern.expand(values)
    return F.conv2d(x, weight, bias, conv.stride, padding, conv.dilation, conv.groups)


def masked_linear(x: Tensor, values: Tensor, bias: Tensor | None, pattern) -> Tensor:
    """`F.linear(x, pattern.expand(values), bias)`, for every task where `values` is `[T, nnz]`."""
    weight = pattern.expand(values)
    if values.dim() == 1:
        return F.linear(x, weight, bias)
    y = (x.flatten(1, -2) if x.dim() > 2 else x.unsqueeze(1)) @ weight.mT
    if bias is not None:
        y = y + (bias.unsqueeze(1) if bias.dim() == 2 else bias)
    return y.reshape(*x.shape[:-1], weight.shape[-2])
