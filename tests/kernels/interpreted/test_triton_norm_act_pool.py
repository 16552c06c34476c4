"""The Triton kernels of `norm_act_pool` against its definition, through the interpreter."""

from __future__ import annotations

import pytest
import torch
from norm_cases import CASES, assert_right, derivatives, exact, operands
from test_norm_act_pool import reference

import sparsemeta as sm
from sparsemeta.backends import triton_norm

LAYOUTS = pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])


def on_triton(case):
    *_, pool, slope = case
    return lambda *t: sm.norm_act_pool(*t, slope=slope, pool=pool, backend="triton")


@pytest.mark.parametrize(
    ("case", "last"), [(case, last) for case in CASES for last in (False, True) if last or case[1] < 64], ids=str
)  # a program takes one channel where it is contiguous: the interpreter would take seconds for 70 of them
def test_value_first_and_second_derivatives(case, last):
    tensors = operands(case, torch.float32, last)
    got = derivatives(on_triton(case), tensors)
    assert_right(got, exact(case, tensors), torch.float32)
    assert got[0].is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


@LAYOUTS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["f16", "bf16"])
@pytest.mark.parametrize("case", CASES[:2], ids=str)
def test_half_precision_keeps_statistics_in_float32(case, dtype, last):
    tensors = operands(case, dtype, last)
    assert_right(derivatives(on_triton(case), tensors), exact(case, tensors), dtype)
    _, mean, rstd, _ = triton_norm.norm_act_pool(*tensors[:3], 1e-5, 0.0, 1)
    assert mean.dtype == rstd.dtype == torch.float32


@pytest.mark.parametrize("case", CASES[:2], ids=str)
def test_third_derivative(case):
    tensors = operands(case, torch.float32)
    assert_right(derivatives(on_triton(case), tensors, third=True), exact(case, tensors, third=True), torch.float32)


@LAYOUTS
def test_a_program_takes_several_tiles_and_its_sums_are_the_same_bits_every_time(monkeypatch, last):
    case = CASES[7]
    tensors = operands(case, torch.float32, last)
    monkeypatch.setattr(triton_norm, "PROGRAMS", 4)
    assert triton_norm._splits(tensors[0], {"BLOCK_C": 1, "BLOCK_M": 1024})[1] == 2
    first, second = (derivatives(on_triton(case), tensors) for _ in range(2))
    assert_right(first, exact(case, tensors), torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@LAYOUTS
def test_a_mean_far_from_zero_costs_no_digits(last):
    x = torch.randn(4, 3, 6, 6)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    weight, bias = torch.randn(2, 3)
    expected = reference((x + 1000).double(), weight.double(), bias.double(), 0.0, 1)
    got = sm.norm_act_pool(x + 1000, weight, bias, backend="triton").double()
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


@LAYOUTS
def test_tasks_of_vmap_run_in_the_launches_of_one(monkeypatch, last):
    def gradient(x, weight, bias):
        loss = lambda *t: sm.norm_act_pool(*t, pool=2, backend="triton").square().sum()  # noqa: E731  differentiated
        return torch.func.grad(loss, argnums=(0, 1, 2))(x, weight, bias)

    launched = spied(monkeypatch, "moments", "norm_act_pool", "gradient_sums", "combine")
    x, weight, bias = torch.randn(2, 3, 2, 2, 5, 6), *torch.randn(2, 3, 2)
    x = x.movedim(-3, -1).contiguous().movedim(-1, -3) if last else x
    once = torch.func.vmap(gradient)(x[0], weight, bias)
    assert launched == ["moments", "norm_act_pool", "gradient_sums", "combine"]
    nested = torch.func.vmap(torch.func.vmap(gradient), in_dims=(0, None, None))(x, weight, bias)
    for task in range(3):
        expected = gradient(x[0, task], weight[task], bias[task])
        for a, b, c in zip(once, nested, expected, strict=True):
            torch.testing.assert_close((a[task], b[0, task]), (c, c), rtol=1e-5, atol=1e-5)


def test_third_derivative_of_tasks():
    x, weight, bias = torch.randn(2, 2, 2, 4, 4), *torch.randn(2, 2, 2)

    def third(f):
        leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
        total = torch.func.vmap(f)(*leaves).square().sum()
        for _ in range(3):
            grads = torch.autograd.grad(total, leaves, create_graph=True)
            total = sum((g * g).sum() for g in grads)
        return grads

    got = third(lambda *t: sm.norm_act_pool(*t, slope=0.1, pool=2, backend="triton"))
    expected = third(lambda *t: reference(*t, 0.1, 2))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.detach().abs().max()))


def test_operands_of_any_strides_and_ties_take_the_first():
    x = torch.zeros(2, 4, 5, 2, 2).movedim(1, 4)[..., 0].movedim(1, 3)  # no two strides in order
    weight, bias = torch.ones(x.shape[1]), torch.ones(x.shape[1])
    leaf = x.clone().requires_grad_()
    y = sm.norm_act_pool(leaf, weight, bias, pool=2, backend="triton")
    y.sum().backward()  # its gradient has strides of 0
    expected = x.clone().requires_grad_()
    reference(expected, weight, bias, 0.0, 2).sum().backward()
    torch.testing.assert_close(leaf.grad, expected.grad)
    code = triton_norm.norm_act_pool(x, weight, bias, 1e-5, 0.0, 2)[3]
    assert bool(((code & 3) == 0).all())


def test_nan_is_not_hidden():
    x = torch.randn(2, 2, 4, 4)
    x[0, 1, 2, 2] = float("nan")
    y = sm.norm_act_pool(x, torch.ones(2), torch.zeros(2), pool=2, backend="triton")
    assert y[:, 1].isnan().all() and not y[:, 0].isnan().any()


def spied(monkeypatch, *names: str) -> list[str]:
    """Names of those kernels that are launched from now on."""
    launched, kernels = [], triton_norm._kernels()
    for name in names:
        monkeypatch.setattr(kernels, name, Spy(getattr(kernels, name), launched))
    return launched


class Spy:
    """A kernel whose launches are noted."""

    def __init__(self, kernel, launched: list[str]):
        self.kernel, self.launched = kernel, launched

    def __getitem__(self, grid):
        self.launched.append(self.kernel.__name__)
        return self.kernel[grid]


def test_a_residual_and_given_statistics_are_refused():
    x, row = torch.randn(2, 3, 4, 4), torch.ones(3)
    for more in ({"residual": x}, {"mean": row, "var": row}):
        with pytest.raises(RuntimeError, match="takes no residual, mean or var"):
            sm.norm_act_pool(x, row, row, backend="triton", **more)
