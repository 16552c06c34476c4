"""norm_act_pool against batch norm, activation and pooling written out, whose derivatives autograd gets right.

(F.batch_norm itself is no reference beyond the second derivative: its double backward takes the saved statistics for
constants.)
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.func import grad, jvp

import sparsemeta as sm

CASES = [
    (3, 4, 6, 8, 2, 0.0), (2, 3, 7, 5, 2, 0.1), (5, 2, 4, 4, 1, 0.0), (1, 3, 5, 9, 1, 0.2), (25, 8, 21, 21, 2, 0.0),
    (4, 3, 2, 3, 2, 0.0), (3, 2, 4, 4, 1, 1.0), (2, 1, 3, 67, 2, 0.0), (2, 5, 40, 33, 2, 0.3),
]  # fmt: skip
BACKENDS = ["dense", "cpu"]


def reference(x, weight, bias, slope, pool, eps=1e-5):
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
    z = (x - mean) * (variance + eps).rsqrt() * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)
    z = F.leaky_relu(z, slope)
    return F.max_pool2d(z, pool) if pool > 1 else z


def operands(case, dtype=torch.float64):
    images, channels, height, width, *_ = case
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(images, channels, height, width, dtype=dtype, generator=generator)
    weight, bias = torch.randn(2, channels, dtype=dtype, generator=generator)
    return [t.requires_grad_() for t in (x, weight.clone(), bias.clone())]


def derivatives(f, tensors):
    """Value, and first to third derivatives against fixed random cotangents."""
    generator = torch.Generator().manual_seed(2)

    def project(outputs):
        pairs = [(t * torch.randn(t.shape, dtype=t.dtype, generator=generator)).sum() for t in outputs]
        return sum(pairs)

    y = f(*tensors)
    g = torch.randn(y.shape, dtype=y.dtype, generator=generator).requires_grad_()
    first = torch.autograd.grad(y, tensors, g, create_graph=True)
    operands_of_first = [tensors[0], tensors[1], g]
    second = torch.autograd.grad(project(first), operands_of_first, create_graph=True)
    second_without_graph = torch.autograd.grad(project(first), operands_of_first, retain_graph=True)
    third = torch.autograd.grad(sum((t * t).sum() for t in second), operands_of_first)
    return [y, *first, *second, *second_without_graph, *third]


@pytest.mark.parametrize("backend", BACKENDS[1:])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_value_and_three_derivatives(case, backend):
    *_, pool, slope = case
    got = derivatives(lambda *t: sm.norm_act_pool(*t, slope=slope, pool=pool, backend=backend), operands(case))
    expected = derivatives(lambda *t: reference(*t, slope, pool), operands(case))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * float(b.detach().abs().max().clamp(min=1)))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES[:4], ids=str)
def test_float32_against_float64(case, backend):
    *_, pool, slope = case
    x, weight, bias = operands(case)
    expected = reference(x, weight, bias, slope, pool)
    got = sm.norm_act_pool(*(t.float() for t in (x, weight, bias)), slope=slope, pool=pool, backend=backend)
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_elements_of_a_cell_take_the_gradient_as_in_pytorch(backend):
    x = torch.zeros(2, 2, 4, 4)
    x[0, :, :2, :2] = 1.0
    x.requires_grad_()
    weight, bias = torch.tensor([1.0, -1.0]), torch.tensor([0.5, 2.0])
    got, expected = (
        torch.autograd.grad(f(x).sum(), x)[0]
        for f in (
            lambda x: sm.norm_act_pool(x, weight, bias, pool=2, backend=backend),
            lambda x: reference(x, weight, bias, 0.0, 2),
        )
    )
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_layouts_and_vmap(backend):
    def loss(x, weight, bias):
        return (sm.norm_act_pool(x, weight, bias, pool=2, backend=backend) ** 2).sum()

    x, weight, bias = torch.randn(4, 3, 2, 6, 6, dtype=torch.float64), *torch.randn(2, 4, 2, dtype=torch.float64)
    got = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1, 2)))(x, weight, bias)
    for task in range(4):
        image = x[task].to(memory_format=torch.channels_last)
        expected = torch.func.grad(loss, argnums=(0, 1, 2))(image, weight[task], bias[task])
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a[task], b)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_is_not_hidden(backend):
    x = torch.randn(2, 2, 4, 4)
    x[0, 1, 2, 2] = float("nan")
    y = sm.norm_act_pool(x, torch.ones(2), torch.zeros(2), pool=2, backend=backend)
    assert y[:, 1].isnan().all() and not y[:, 0].isnan().any()


@pytest.mark.parametrize(
    ("x", "channels", "pool", "match"),
    [
        (torch.randn(2, 3, 4), 3, 1, r"expected x \[N, C, H, W\]"),
        (torch.randn(2, 3, 4, 4), 2, 1, "one weight and bias for each channel"),
        (torch.randn(2, 3, 4, 4), 3, 3, "expected pool to be 1 or 2"),
        (torch.randn(2, 3, 1, 4), 3, 2, "not larger than the image"),
        (torch.randn(1, 3, 1, 1), 3, 1, "more than one value"),
    ],
)
def test_bad_input(x, channels, pool, match):
    with pytest.raises(ValueError, match=match):
        sm.norm_act_pool(x, torch.ones(channels), torch.zeros(channels), pool=pool)


@pytest.mark.parametrize("case", CASES[:2], ids=str)
def test_forward_mode(case):
    """For which PyTorch's own rules are taken; the kernels have none."""
    *_, pool, slope = case
    tensors = [t.detach() for t in operands(case)]
    tangents = tuple(torch.randn_like(t) for t in tensors)
    f, wanted = (lambda *t: sm.norm_act_pool(*t, slope=slope, pool=pool), lambda *t: reference(*t, slope, pool))
    for of in (lambda h: h, lambda h: grad(lambda *t: h(*t).square().sum(), (0, 1, 2))):  # alone, and over reverse
        got, expected = (jvp(of(h), tuple(tensors), tangents)[1] for h in (f, wanted))
        torch.testing.assert_close(got, expected)
