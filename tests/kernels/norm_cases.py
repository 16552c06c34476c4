"""What the Triton kernels of `norm_act_pool` have to compute: cases, operands, derivatives, tolerances."""

from __future__ import annotations

import torch
from test_norm_act_pool import reference
from torch import Tensor

# images, channels, height, width, pool, slope: odd sizes, one channel, more channels than a tile has, several tiles
CASES = [
    (3, 4, 6, 8, 2, 0.0), (2, 3, 7, 5, 2, 0.1), (5, 2, 4, 4, 1, 0.0), (1, 3, 5, 9, 1, 0.2), (2, 1, 3, 7, 2, 0.0),
    (2, 5, 2, 3, 2, 1.0), (1, 70, 3, 3, 1, 0.0), (13, 2, 13, 15, 2, 0.0), (3, 2, 1, 1, 1, 0.1),
]  # fmt: skip
TOLERANCES = {torch.float32: 2e-5, torch.float16: 6e-3, torch.bfloat16: 5e-2}  # of the largest entry of each result


def operands(case: tuple, dtype: torch.dtype, last: bool = False) -> list[Tensor]:
    """x, weight, bias, the outputs' gradient, and what comes back against the gradients of the first three."""
    images, channels, height, width, pool, _ = case
    shapes = [(images, channels, height, width), (channels,), (channels,)]
    x, weight, bias, *back = [torch.randn(shape).to(dtype) for shape in shapes * 2]
    g = torch.randn(images, channels, height // pool, width // pool).to(dtype)
    if last:
        x, g = (t.contiguous(memory_format=torch.channels_last) for t in (x, g))
    return [x, weight, bias, g, *back]


def derivatives(f, tensors: list[Tensor], third: bool = False) -> list[Tensor]:
    """Value, first and second derivatives; and the third, of all of which the second then keeps a graph."""
    x, weight, bias, g = (t.detach().requires_grad_() for t in tensors[:4])
    y = f(x, weight, bias)
    first = torch.autograd.grad(y, (x, weight, bias), g, create_graph=True)
    second = torch.autograd.grad(first, (x, weight, g), tensors[4:], create_graph=third)
    found = [y, *first, *second]
    if third:
        found += torch.autograd.grad(sum((t * t).sum() for t in second), (x, weight, g))
    return found


def exact(case: tuple, tensors: list[Tensor], third: bool = False) -> list[Tensor]:
    """By the definition in float64, whatever the operands are."""
    *_, pool, slope = case
    doubles = [t.cpu().double() for t in tensors]
    return derivatives(lambda *t: reference(*t, slope, pool), doubles, third)


def assert_right(got: list[Tensor], expected: list[Tensor], dtype: torch.dtype) -> None:
    """Each result within the tolerance of its type."""
    for i, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert a.dtype == dtype
        scale = float(b.detach().abs().max().clamp(min=1))
        worst = ((a.cpu().double() - b).abs().max() / scale).item() if b.numel() else 0.0
        assert worst <= TOLERANCES[dtype], (i, worst)
