"""`masked_linear` against its definition, `F.linear(x, pattern.expand(values), bias)`."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.func import grad, jvp, vmap

from sparsemeta.ops import masked_linear
from sparsemeta.pattern import Pattern
from sparsemeta.pattern_bits import every_block, keep_blocks

backends = pytest.mark.parametrize("backend", ["dense", "cpu"])
ROWS = [(5,), (1, 5), (0, 5), (7, 5), (2, 3, 5), (2, 0, 3, 5)]


def pattern_of(shape=(6, 5), block=(1, 1), kept=0.4) -> Pattern:
    everything = every_block(shape, block)
    return keep_blocks(everything, torch.rand(everything.numel // torch.Size(everything.block).numel()) < kept)


def operands(pattern, rows, bias, dtype=torch.float64):
    x = torch.randn(*rows, dtype=dtype, requires_grad=True)
    values = torch.randn(pattern.nnz, dtype=dtype, requires_grad=True)
    return x, values, torch.randn(pattern.shape[0], dtype=dtype, requires_grad=True) if bias else None


def definition(x, values, bias, pattern):
    return F.linear(x, pattern.expand(values), bias)


def first_and_second(y, inputs):
    """Gradients of a loss with curvature, and gradients of their square."""
    inputs = [t for t in inputs if t is not None]
    first = torch.autograd.grad(y.sin().sum(), inputs, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), inputs, allow_unused=True)
    return [*first, *(torch.zeros_like(t) if g is None else g for g, t in zip(second, inputs, strict=True))]


def assert_same_derivatives(y, expected, inputs):
    for got, wanted in zip(first_and_second(y, inputs), first_and_second(expected, inputs), strict=True):
        torch.testing.assert_close(got, wanted)


@backends
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
@pytest.mark.parametrize("rows", ROWS, ids=str)
def test_equals_its_definition(backend, rows, bias):
    pattern = pattern_of()
    x, values, b = operands(pattern, rows, bias)
    y, expected = masked_linear(x, values, pattern, b, backend), definition(x, values, b, pattern)
    torch.testing.assert_close(y, expected)
    assert_same_derivatives(y, expected, (x, values, b))


@backends
@pytest.mark.parametrize(("block", "kept"), [((2, 5), 0.5), ((3, 1), 0.3), ((1, 1), 0.0), ((1, 1), 1.0)])
def test_patterns(backend, block, kept):
    pattern = pattern_of(block=block, kept=kept)
    x, values, bias = operands(pattern, (7, 5), True)
    y, expected = masked_linear(x, values, pattern, bias, backend), definition(x, values, bias, pattern)
    torch.testing.assert_close(y, expected)
    assert_same_derivatives(y, expected, (x, values, bias))


@backends
def test_gradcheck_to_second_order(backend):
    pattern = pattern_of((3, 4))
    x, values, bias = operands(pattern, (2, 4), True)

    def function(x, values, bias):
        return masked_linear(x, values, pattern, bias, backend)

    assert torch.autograd.gradcheck(function, (x, values, bias))
    assert torch.autograd.gradgradcheck(lambda *t: function(*t).sin(), (x, values, bias))


@backends
@pytest.mark.parametrize("task_bias", [True, False], ids=["task bias", "one bias"])
def test_tasks_equal_a_loop(backend, task_bias):
    pattern = pattern_of()
    x, values = torch.randn(3, 4, 5), torch.randn(3, pattern.nnz)
    bias = torch.randn(3, 6) if task_bias else torch.randn(6)
    expected = [definition(x[t], values[t], bias[t] if task_bias else bias, pattern) for t in range(3)]
    torch.testing.assert_close(masked_linear(x, values, pattern, bias, backend), torch.stack(expected))


@backends
@pytest.mark.parametrize("mapped", [(0, 0, 0), (0, None, None), (None, 0, None), (0, 0, None), (None, 0, 0)], ids=str)
def test_vmap_equals_a_loop(backend, mapped):
    pattern = pattern_of()
    whole = torch.randn(3, 4, 5), torch.randn(3, pattern.nnz), torch.randn(3, 6)
    given = [t if dim == 0 else t[0] for t, dim in zip(whole, mapped, strict=True)]

    def function(x, values, bias):
        return masked_linear(x, values, pattern, bias, backend)

    def of_task(t):
        return definition(*(g[t] if dim == 0 else g for g, dim in zip(given, mapped, strict=True)), pattern)

    torch.testing.assert_close(vmap(function, in_dims=mapped)(*given), torch.stack([of_task(t) for t in range(3)]))


@backends
def test_func_transforms(backend):
    pattern = pattern_of()
    x, values, bias = (t.detach() for t in operands(pattern, (4, 5), True))

    def loss(linear):
        return lambda values: linear(values).sin().sum()

    sparse = loss(lambda v: masked_linear(x, v, pattern, bias, backend))
    dense = loss(lambda v: definition(x, v, bias, pattern))
    torch.testing.assert_close(grad(sparse)(values), grad(dense)(values))
    torch.testing.assert_close(jvp(sparse, (values,), (values,)), jvp(dense, (values,), (values,)))
    per_task = torch.stack([values, 2 * values])
    torch.testing.assert_close(vmap(grad(sparse))(per_task), vmap(grad(dense))(per_task))


@backends
def test_any_strides(backend):
    pattern = pattern_of()
    x, values, _ = operands(pattern, (7, 5), False)
    for view in (x.detach().t().contiguous().t(), x.detach()[::2], x.detach()[:1].expand(4, 5)):
        view = view.requires_grad_()
        y = masked_linear(view, values, pattern, backend=backend)
        torch.testing.assert_close(y, definition(view, values, None, pattern))
        got = torch.autograd.grad(y.sum(), (view, values))  # the gradient of a sum is expanded: strides 0
        wanted = torch.autograd.grad(definition(view, values, None, pattern).sum(), (view, values))
        torch.testing.assert_close(got, wanted)


BAD = {
    "pattern": ("expected a Pattern", {"pattern": torch.ones(6, 5)}),
    "conv pattern": (r"Pattern of shape \(O, I\)", {"pattern": pattern_of((6, 5, 1, 1))}),
    "features": (r"x \[..., 5\]", {"x": torch.ones(2, 4)}),
    "values": (r"values of shape \(30,\)", {"values": torch.ones(29)}),
    "tasks": (r"x \[T, ..., 5\]", {"values": torch.ones(3, 30)}),
    "bias": (r"bias of shape \(6,\)", {"bias": torch.ones(5)}),
    "dtype": ("dtype", {"values": torch.ones(30, dtype=torch.float64)}),
    "device": ("values on cpu", {"values": torch.ones(30, device="meta")}),
    "backend": ("backend to be one of", {"backend": "cudnn"}),
}


@pytest.mark.parametrize(("message", "changed"), BAD.values(), ids=BAD)
def test_bad_input(message, changed):
    good = {"x": torch.ones(2, 5), "values": torch.ones(30), "pattern": pattern_of(kept=1.1), "bias": None}
    masked_linear(**good)
    with pytest.raises(ValueError, match=message):
        masked_linear(**good | changed)
