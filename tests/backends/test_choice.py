"""Whatever route each pass takes, values and derivatives are those of the definition."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

import sparsemeta as sm
from sparsemeta import backends
from sparsemeta.backends import choice
from sparsemeta.backends.choice_dense import routes
from sparsemeta.ops.conv import Conv

pytestmark = pytest.mark.extension

GEOMETRIES = {
    "plain": ((4, 3, 3, 3), (2, 3, 5, 6), {"padding": 1}),
    "stride, dilation, groups": ((4, 2, 3, 3), (2, 4, 8, 7), {"stride": (2, 1), "dilation": (1, 2), "groups": 2}),
    "even kernel, same": ((4, 3, 2, 4), (2, 3, 5, 6), {"padding": "same"}),
    "1x1": ((4, 3, 1, 1), (2, 3, 5, 6), {}),
}
MIXED = [("contiguous", "cpu", "channels_last"), ("cpu", "channels_last", "contiguous"),
         ("channels_last", "contiguous", "cpu")]  # fmt: skip  forward, input gradient, weight gradient


def force(monkeypatch, forward: str, input_grad: str, weight_grad: str) -> None:
    chosen = {"forward": forward, "input gradient": input_grad, "weight gradient": weight_grad}
    monkeypatch.setattr(choice, "route", lambda key, conv: chosen[key.operation])


def problem(name: str, tasks: tuple[int, ...] = ()):
    weight, images, geometry = GEOMETRIES[name]
    pattern = sm.Pattern.from_mask(torch.rand(weight) < 0.5)
    operands = [torch.randn(*tasks, *size).double().requires_grad_() for size in (images, (pattern.nnz,), weight[:1])]
    return operands, lambda x, v, b: sm.masked_conv2d(x, v, pattern, b, **geometry), pattern, geometry


@pytest.mark.parametrize("mixed", MIXED)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_first_and_second_derivatives_with_another_route_for_each_pass(monkeypatch, taken, geometry, mixed):
    force(monkeypatch, *mixed)
    operands, function, *_ = problem(geometry)
    assert torch.autograd.gradcheck(function, operands)
    assert torch.autograd.gradgradcheck(function, operands)
    assert {name for _, name in taken} == set(mixed)


@pytest.mark.parametrize("tasks", [(), (3,)], ids=["one", "tasks"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_every_route_gives_values_and_gradients_of_the_definition(monkeypatch, geometry, tasks):
    operands, function, pattern, arguments = problem(geometry, tasks)

    def definition(x, v, b):
        return F.conv2d(x, pattern.expand(v), b, **arguments)

    exact = torch.func.vmap(definition)(*operands) if tasks else definition(*operands)
    g = torch.randn_like(exact)
    expected = exact, *torch.autograd.grad(exact, operands, g)
    for route in ("cpu", *routes(Conv.make(pattern, *_canonical(arguments)))):
        force(monkeypatch, route, route, route)
        y = function(*operands)
        assert y.is_contiguous()
        torch.testing.assert_close((y, *torch.autograd.grad(y, operands, g)), expected, msg=lambda m, r=route: r + m)


def _canonical(given: dict):
    return (*(given.get(n, d) for n, d in [("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1)]), "cpu")


def test_linear_layer_has_the_matrix_product_as_a_route(monkeypatch, taken):
    force(monkeypatch, "matmul", "matmul", "matmul")
    pattern = sm.Pattern.from_mask(torch.rand(4, 6) < 0.5)
    operands = [torch.randn(size).double().requires_grad_() for size in ((5, 6), pattern.nnz, 4)]
    assert torch.autograd.gradgradcheck(lambda x, v, b: sm.masked_linear(x, v, pattern, b), operands)
    assert {name for _, name in taken} == {"matmul"}


@pytest.mark.parametrize(("batched", "mapped"), [*itertools.product([True, False], repeat=2)])
def test_under_vmap_and_grad(monkeypatch, batched, mapped):
    force(monkeypatch, "channels_last", "contiguous", "cpu")
    (x, values, _), _, pattern, arguments = problem("plain", (3,))

    def loss(convolution):
        return lambda x, v: convolution(x, v).sin().sum()

    def gradients(convolution):
        dims = (0 if batched else None, 0 if mapped else None)
        if dims == (None, None):
            return torch.func.grad(loss(convolution), (0, 1))(x[0], values[0])
        given = x if batched else x[0], values if mapped else values[0]
        return torch.func.vmap(torch.func.grad(loss(convolution), (0, 1)), dims)(*given)

    expected = gradients(lambda x, v: F.conv2d(x, pattern.expand(v), None, **arguments))
    torch.testing.assert_close(gradients(lambda x, v: sm.masked_conv2d(x, v, pattern, **arguments)), expected)


def test_compiled_code_takes_the_route_too(monkeypatch, taken):
    force(monkeypatch, "channels_last", "cpu", "contiguous")
    (x, values, bias), function, *_ = problem("plain")
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    given = x, values, bias
    expected = torch.autograd.grad(function(*given).sin().sum(), given)
    taken.clear()
    torch.testing.assert_close(torch.autograd.grad(compiled(*given).sin().sum(), given), expected)
    assert sorted(route for _, route in taken) == ["channels_last", "contiguous", "cpu"]


def test_nothing_to_compute_is_not_measured(scripted):
    measured = scripted(cpu=1.0)
    pattern = sm.Pattern.from_mask(torch.ones(4, 3, 3, 3) > 0)
    empty = sm.Pattern.from_mask(torch.zeros(4, 3, 3, 3) > 0)
    backends.tune(lambda: sm.masked_conv2d(torch.randn(0, 3, 5, 5), torch.randn(pattern.nnz), pattern))
    backends.tune(lambda: sm.masked_conv2d(torch.randn(1, 3, 5, 5), torch.randn(0), empty))
    assert not measured


def test_autocast_does_not_change_the_type(monkeypatch, scripted):
    scripted(contiguous=1.0)
    (x, values, _), *_, pattern, arguments = problem("plain")
    x, values = x.float(), values.float()
    backends.tune(lambda: sm.masked_conv2d(x, values, pattern, **arguments))
    with torch.autocast("cpu"):
        y = sm.masked_conv2d(x, values, pattern, **arguments)
    assert y.dtype == torch.float32


def test_the_named_backend_is_not_second_guessed(scripted, taken):
    scripted(cpu=2.0, contiguous=1.0)
    (x, values, _), *_, pattern, arguments = problem("plain")
    backends.tune(lambda: sm.masked_conv2d(x, values, pattern, **arguments, backend="cpu"))
    assert taken == [("masked_conv2d", "cpu")]
