"""The Triton kernel of `inner_update` against `p - lr * g`, through the interpreter."""

from __future__ import annotations

import pytest
import torch

import sparsemeta as sm
from sparsemeta.backends import triton, triton_update
from sparsemeta.ops import inner_update_function

SHAPES = [(), (1030,), (3, 4, 2, 2), (0,), (2, 5)]  # more than one program; one of nothing
TOLERANCES = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
RATES = {
    "numbers": [0.1, 0.2, 0.0, 0.5, 0.3],
    "scalars": [torch.tensor(0.1 * i) for i in range(5)],
    "mixed": [0.1, torch.rand(1030), torch.rand(3, 1, 1, 1), 0.2, torch.rand(5)],
    "shared": [torch.tensor(0.2), torch.rand(1), torch.rand(4, 2, 1), torch.rand(1), torch.rand(2, 1)],
    "apart": [0.1, 0.2, torch.rand(3, 1, 2, 1), 0.1, torch.rand(2, 5)],
}


@pytest.mark.parametrize("dtype", TOLERANCES, ids=["f32", "f16", "bf16"])
@pytest.mark.parametrize("kind", RATES)
def test_equals_its_definition(kind, dtype):
    params, grads = ([torch.randn(shape).to(dtype) for shape in SHAPES] for _ in range(2))
    rates = [lr.to(dtype) if isinstance(lr, torch.Tensor) else lr for lr in RATES[kind]]
    new, negated = triton.inner_update(params, grads, rates), triton.inner_update([None] * 5, grads, rates)
    for p, g, lr, got, from_zeros in zip(params, grads, rates, new, negated, strict=True):
        step = (lr.double() if isinstance(lr, torch.Tensor) else lr) * g.double()
        options = {"rtol": TOLERANCES[dtype], "atol": TOLERANCES[dtype]}
        torch.testing.assert_close(got, (p.double() - step).to(dtype), **options)
        torch.testing.assert_close(from_zeros, (-step).to(dtype), **options)


def test_all_parameters_in_one_launch_and_in_a_second_those_of_which_there_is_no_room(monkeypatch):
    launches = []
    launch = triton_update._launch
    monkeypatch.setattr(triton_update, "_launch", lambda *t: launches.append(len(t[0])) or launch(*t))
    tensors = [torch.randn(3) for _ in range(5)]
    triton.inner_update(tensors, tensors, [0.1] * 5)
    assert launches == [5]
    monkeypatch.setattr(triton_update._kernels(), "LIMIT", 2)
    triton.inner_update(tensors, tensors, [0.1] * 5)
    assert launches == [5, 2, 2, 1]


def through_triton(monkeypatch):
    """The autograd function with the Triton kernel, which on CPU tensors comes last; returns its launches."""
    launches = []
    monkeypatch.setattr(inner_update_function.cpu, "extension", lambda: None)
    kernel = lambda *t: launches.append(len(t[0])) or triton_update.inner_update(*t)  # noqa: E731  counted
    monkeypatch.setattr(triton, "inner_update", kernel)
    return launches


@pytest.mark.parametrize("learned", [False, True], ids=["numbers", "tensors"])
def test_tasks_first_and_second_derivatives(monkeypatch, learned):
    launches = through_triton(monkeypatch)
    p, q, lr = torch.randn(3, 2, 4), torch.randn(3, 5), torch.rand(2, 1) if learned else 0.1

    def loss(update):
        def of_task(p, q, *lr):
            rates = [*lr, 0.3] if lr else [0.1, 0.3]
            new = update([p, q], [p.sin(), q.cos()], rates)
            return sum((t**3).sum() for t in new)

        return of_task

    def second(f):
        leaves = [p, q] + [lr] * learned
        dims = (0, 0, None)[: len(leaves)]
        gradient = torch.func.vmap(torch.func.grad(f, argnums=tuple(range(len(leaves)))), in_dims=dims)
        total = lambda *t: sum((g**2).sum() for g in gradient(*t))  # noqa: E731  differentiated
        return torch.func.grad(total, argnums=tuple(range(len(leaves))))(*leaves)

    got = second(loss(sm.inner_update))
    expected = second(loss(lambda ps, gs, rates: [a - lr * b for a, b, lr in zip(ps, gs, rates, strict=True)]))
    assert launches and launches[0] == 2  # both parameters, all tasks
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
