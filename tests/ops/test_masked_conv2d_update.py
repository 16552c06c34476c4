"""`masked_conv2d_update` against its definition, `values - lr * gradient`, on every backend."""

from __future__ import annotations

import contextlib

import pytest
import torch
from conv_cases import BACKENDS, CASES
from problem import expected, masked_arguments, problem
from tolerances import assert_close

import sparsemeta as sm
from sparsemeta.backends import cuda
from sparsemeta.ops import masked_conv2d_update

WITH_CUDA = [*BACKENDS, pytest.param("cuda", marks=pytest.mark.extension)]
TASKED = [case for case in CASES if "x" not in case.shared]  # each task has its own input, or there are none


def running(backend: str):
    """Backend "cuda" is emulated."""
    return cuda.emulation() if backend == "cuda" else contextlib.nullcontext()


@pytest.mark.parametrize("backend", WITH_CUDA)
@pytest.mark.parametrize("case", TASKED, ids=lambda case: case.name)
def test_equals_definition(case, backend):
    p = problem(case, torch.float32)
    with running(backend):
        new = masked_conv2d_update(p.values, p.g, p.x, lr=0.25, backend=backend, **masked_arguments(case))
    wanted = problem(case, torch.float64).values.detach() - 0.25 * expected(case)["gradient of values"]
    assert_close(new.detach(), wanted, "masked_conv2d_weight_grad")


@pytest.mark.extension
@pytest.mark.parametrize("splits", [1, 3])
def test_sums_in_parts_end_in_the_update(splits, monkeypatch):
    monkeypatch.setattr(cuda, "processors", lambda device: 1 if splits == 1 else 1000)
    pattern = sm.Pattern.from_mask(torch.rand(5, 3, 3, 3) < 0.5)
    x, g, values = torch.randn(2, 9, 3, 8, 8), torch.randn(2, 9, 5, 6, 6), torch.randn(2, pattern.nnz)
    wanted = masked_conv2d_update(values.double(), g.double(), x.double(), pattern, 0.5, backend="dense")
    with cuda.emulation():
        new = masked_conv2d_update(values, g, x, pattern, 0.5, backend="cuda")
    assert_close(new, wanted, "masked_conv2d_weight_grad")


def test_the_gradient_is_a_constant():
    pattern = sm.Pattern.from_mask(torch.ones(2, 1, 1, 1, dtype=torch.bool))
    values, g, x = torch.rand(2), torch.rand(3, 2, 4, 4), torch.rand(3, 1, 4, 4)
    for t in (values, g, x):
        t.requires_grad_()
    new = masked_conv2d_update(values, g, x, pattern, 0.1)
    to_values, to_g, to_x = torch.autograd.grad(new.sum(), (values, g, x), allow_unused=True)
    assert torch.equal(to_values, torch.ones(2)) and to_g is None and to_x is None


def test_gradient_of_another_size_is_refused():
    pattern = sm.Pattern.from_mask(torch.ones(2, 1, 3, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"expected g of shape \(3, 2, 2, 2\).*got \(3, 2, 4, 4\)"):
        masked_conv2d_update(torch.rand(18), torch.rand(3, 2, 4, 4), torch.rand(3, 1, 4, 4), pattern, 0.1)
