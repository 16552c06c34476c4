"""norm_act_pool with a residual and with given statistics, against the sum written out in PyTorch."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F

import sparsemeta as sm
from sparsemeta.ops.norm_act_pool import Norm
from sparsemeta.ops.norm_act_pool_function import NormActPoolGrad

# images, channels, height, width, pool, slope
CASES = [
    (3, 4, 6, 8, 2, 0.1), (2, 3, 7, 5, 2, 0.0), (5, 2, 4, 4, 1, 0.0), (1, 3, 5, 9, 1, 0.2), (4, 3, 2, 3, 2, 0.0),
    (3, 2, 4, 4, 1, 1.0), (2, 1, 3, 67, 2, 0.1), (25, 8, 21, 21, 2, 0.1),
]  # fmt: skip
KINDS = ["normalised", "given", "mixed", "plain", "plain, given", "none, given"]
BACKENDS = ["dense", "cpu"]


def normalise(x, weight, bias, mean=None, var=None, eps=1e-5):
    """Batch norm whose third derivative autograd gets right: that of F.batch_norm takes statistics for constants."""
    column = (1, -1, 1, 1)
    if mean is None:
        var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    rstd = (var.view(column) + eps).rsqrt()
    return (x - mean.view(column)) * rstd * weight.view(column) + bias.view(column)


def operands(case, kind):
    """Tensors that want gradients, and the function from them to `Norm` of x, residual."""
    images, channels, height, width, *_ = case
    normal = partial(torch.randn, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    tensors = [normal(images, channels, height, width), normal(channels), normal(channels)]
    of_x = of_residual = ()
    if kind != "none, given":
        tensors.append(normal(images, channels, height, width))
    if kind in ("normalised", "given", "mixed"):
        tensors += normal(channels), normal(channels)
    if kind not in ("normalised", "plain", "mixed"):
        of_x = normal(channels), normal(channels).abs()
    if kind in ("given", "mixed"):
        of_residual = normal(channels), normal(channels).abs()

    def make(x, weight, bias, *residual):
        norm = Norm(x, weight, bias, *(t.to(x) for t in of_x))
        if len(residual) == 3:
            return norm, Norm(*residual, *(t.to(x) for t in of_residual))
        return norm, residual[0] if residual else None

    return [t.requires_grad_() for t in tensors], make


def reference(make, slope, pool, *tensors):
    norm, residual = make(*tensors)
    z = normalise(*norm)
    if residual is not None:
        z = z + (normalise(*residual) if isinstance(residual, Norm) else residual)
    z = F.leaky_relu(z, slope)
    return F.max_pool2d(z, pool) if pool > 1 else z


def computed(make, slope, pool, *tensors, backend="cpu"):
    (x, weight, bias, mean, var), residual = make(*tensors)
    return sm.norm_act_pool(
        x, weight, bias, slope=slope, pool=pool, backend=backend, mean=mean, var=var, residual=residual
    )


def derivatives(f, tensors):
    """Value, and first to third derivatives against fixed random cotangents."""
    normal = partial(torch.randn, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    y = f(*tensors)
    g = normal(y.shape).requires_grad_()
    first = torch.autograd.grad(y, tensors, g, create_graph=True)
    projected = sum((t * normal(t.shape)).sum() for t in first)
    of_first = [*tensors, g]
    second = torch.autograd.grad(projected, of_first, create_graph=True, materialize_grads=True)
    without_graph = torch.autograd.grad(projected, of_first, retain_graph=True, materialize_grads=True)
    third = torch.autograd.grad(sum((t * t).sum() for t in second), of_first, materialize_grads=True)
    return [y, *first, *second, *without_graph, *third]


def assert_same(got, expected):
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * float(b.detach().abs().max().clamp(min=1)))


@pytest.mark.extension
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_value_and_three_derivatives(case, kind):
    *_, pool, slope = case
    tensors, make = operands(case, kind)
    got, expected = (derivatives(partial(f, make, slope, pool), tensors) for f in (computed, reference))
    assert_same(got, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_dense_is_the_definition(kind):
    tensors, make = operands(CASES[0], kind)
    torch.testing.assert_close(
        computed(make, 0.1, 2, *tensors, backend="dense"), reference(make, 0.1, 2, *tensors), rtol=1e-10, atol=1e-10
    )


@pytest.mark.extension
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pool", [1, 2])
def test_gradcheck_and_gradgradcheck(kind, pool):
    tensors, make = operands((2, 2, 3, 5), kind)
    f = partial(computed, make, 0.1, pool)
    assert torch.autograd.gradcheck(f, tensors)
    assert torch.autograd.gradgradcheck(f, tensors)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_float32_against_float64(backend, kind):
    tensors, make = operands(CASES[0], kind)
    got = computed(make, 0.1, 2, *(t.float() for t in tensors), backend=backend)
    torch.testing.assert_close(got.double(), reference(make, 0.1, 2, *tensors), rtol=1e-4, atol=1e-5)


@pytest.mark.extension
@pytest.mark.parametrize("layout", ["transposed", "expanded", "channels_last"])
def test_gradients_and_operands_of_any_layout(layout):
    tensors, make = operands((3, 4, 6, 8), "normalised")
    images = [tensors[0], tensors[3]]
    if layout == "transposed":
        images = [t.detach().transpose(2, 3).contiguous().transpose(2, 3).requires_grad_() for t in images]
    if layout == "channels_last":
        images = [t.detach().to(memory_format=torch.channels_last).requires_grad_() for t in images]
    tensors[0], tensors[3] = images
    g = torch.tensor(0.7, dtype=torch.float64).expand(3, 4, 3, 4)
    if layout == "transposed":
        g = torch.randn(3, 4, 4, 3, dtype=torch.float64).transpose(2, 3)

    def second(f):
        first = torch.autograd.grad(f(make, 0.1, 2, *tensors), tensors, g, create_graph=True)
        norm = sum((t**2).sum() for t in first)
        return [*first, *torch.autograd.grad(norm, tensors, materialize_grads=True)]  # a bias has no part in it

    assert_same(second(computed), second(reference))


@pytest.mark.extension
@pytest.mark.parametrize("kind", ["normalised", "plain"])
def test_a_residual_that_needs_no_gradient_costs_none(kind, monkeypatch):
    tensors, make = operands(CASES[0], kind)
    for t in tensors[3:]:
        t.requires_grad_(False)
    calls, plain = [], NormActPoolGrad.apply
    monkeypatch.setattr(NormActPoolGrad, "apply", lambda *args: calls.append(1) or plain(*args))
    got, expected = (torch.autograd.grad(f(make, 0.1, 2, *tensors).sum(), tensors[:3]) for f in (computed, reference))
    assert_same(got, expected)
    assert len(calls) == 1


@pytest.mark.extension
def test_the_second_order_term_of_the_residual_is_there():
    tensors, make = operands((4, 3, 6, 6), "normalised")
    directions = [torch.randn_like(t) for t in tensors]

    def second(f, terms):
        first = torch.autograd.grad(f(make, 0.1, 2, *tensors).square().sum(), tensors, create_graph=True)
        return torch.autograd.grad(sum((first[i] * directions[i]).sum() for i in terms), tensors)

    expected, without = second(reference, range(6)), second(reference, range(3))
    assert_same(second(computed, range(6)), expected)
    assert all((a - b).norm() > 0.1 * a.norm() for a, b in zip(expected, without, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["normalised", "given", "plain"])
def test_vmap_over_tasks(kind, backend):
    tasks = 3
    each, make = zip(*(operands((4, 2, 6, 6), kind) for _ in range(tasks)), strict=True)
    each = [[t.detach() * (task + 1) for t in of_task] for task, of_task in enumerate(each)]
    stacked = [torch.stack(of_all) for of_all in zip(*each, strict=True)]
    grad = torch.func.grad(
        lambda *t: (computed(make[0], 0.1, 2, *t, backend=backend) ** 2).sum(), argnums=tuple(range(len(stacked)))
    )
    got = torch.func.vmap(grad)(*stacked)
    for task in range(tasks):
        for a, b in zip(got, grad(*each[task]), strict=True):
            torch.testing.assert_close(a[task], b)


@pytest.mark.extension
def test_shared_residual_of_all_tasks():
    x, r = torch.randn(3, 4, 2, 6, 6, dtype=torch.float64), torch.randn(4, 2, 6, 6, dtype=torch.float64)
    weight, bias = torch.randn(2, 2, dtype=torch.float64)

    def f(x):
        return sm.norm_act_pool(x, weight, bias, backend="cpu", residual=Norm(r, weight, bias))

    torch.testing.assert_close(torch.func.vmap(f)(x), torch.stack([f(t) for t in x]))


@pytest.mark.extension
@pytest.mark.parametrize("kind", ["normalised", "plain", "given"])
def test_first_order_compiles(kind):
    tensors, make = operands(CASES[0], kind)
    f = partial(computed, make, 0.1, 2)
    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
    got, expected = (torch.autograd.grad(h(*tensors).sum(), tensors) for h in (compiled, f))
    assert_same(got, expected)


@pytest.mark.extension
def test_given_statistics_take_a_single_value():
    x, one = torch.full((1, 2, 1, 1), 3.0), torch.ones(2)
    y = sm.norm_act_pool(x, one, one, eps=0.0, mean=one, var=4 * one, backend="cpu")
    torch.testing.assert_close(y, torch.full_like(x, 2.0))


IMAGES, ROW = torch.randn(2, 3, 4, 4), torch.ones(3)


@pytest.mark.parametrize(
    ("more", "error", "match"),
    [
        ({"residual": torch.randn(2, 3, 4, 1)}, ValueError, "expected a residual of the shape of x"),
        ({"residual": Norm(torch.randn(2, 3, 4, 5), ROW, ROW)}, ValueError, "one shape for all"),
        ({"residual": Norm(IMAGES, torch.ones(2), ROW)}, ValueError, "one weight and bias for each channel"),
        ({"residual": (IMAGES, ROW, ROW)}, TypeError, "expected residual to be a Tensor or a Norm, got tuple"),
        ({"mean": ROW}, ValueError, "expected mean and var, or neither"),
        ({"mean": ROW, "var": torch.ones(2)}, ValueError, "the rest"),
        ({"slope": -0.1}, ValueError, "expected a slope of at least 0"),
    ],
)
def test_bad_input(more, error, match):
    with pytest.raises(error, match=match):
        sm.norm_act_pool(IMAGES, ROW, ROW, **more)
