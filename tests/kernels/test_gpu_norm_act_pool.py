"""The Triton kernels of `norm_act_pool` on a GPU against the definition: the same cases as through the interpreter."""

from __future__ import annotations

import pytest
import torch
from norm_cases import CASES, TOLERANCES, assert_right, derivatives, exact, operands

import sparsemeta as sm

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=["f32", "f16", "bf16"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_value_first_and_second_derivatives(case, dtype, last, poison):
    *_, pool, slope = case
    tensors = operands(case, dtype, last)
    on_gpu = [t.cuda() for t in tensors]
    got, again = (
        derivatives(lambda *t: sm.norm_act_pool(*t, slope=slope, pool=pool, backend="triton"), on_gpu)
        for _ in range(2)
    )
    assert_right(got, exact(case, tensors), dtype)
    assert all(torch.equal(a, b) for a, b in zip(got, again, strict=True))
