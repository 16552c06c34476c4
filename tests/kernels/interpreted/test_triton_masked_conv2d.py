"""The Triton kernels of `masked_conv2d` against its definition, through the interpreter."""

from __future__ import annotations

import pytest
import torch
from block_cases import CASES, SHORT
from problem import OPERATIONS, assert_equals_definition, dense, derivatives, masked, problem
from tolerances import assert_close

from sparsemeta.backends import triton

HALVES = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_value_first_and_second_derivatives(case):
    got = derivatives(masked(case, "triton"), problem(case, torch.float32))
    assert_equals_definition(case, got, torch.float32)


@pytest.mark.parametrize("case", [case for case in CASES if case.name in SHORT], ids=lambda case: case.name)
def test_strict_float32_takes_fewer_channels_in_a_step(case, monkeypatch):
    monkeypatch.setattr(triton, "allow_tf32", lambda: False)
    assert_equals_definition(case, derivatives(masked(case, "triton"), problem(case, torch.float32)), torch.float32)


@pytest.mark.parametrize("dtype", HALVES, ids=["f16", "bf16"])
@pytest.mark.parametrize("case", [case for case in CASES if case.name in SHORT], ids=lambda case: case.name)
def test_half_precision_against_the_definition_of_the_same_operands(case, dtype):
    p = problem(case, dtype)
    got = derivatives(masked(case, "triton"), p)
    for name in ("x", "values", "bias", "g"):
        setattr(p, name, getattr(p, name).detach().double().requires_grad_())
    p.cotangents = [t.double() for t in p.cotangents]
    for name, expected in derivatives(dense(case), p).items():
        assert got[name].dtype == dtype
        operation = "sum of results" if name == "second derivative of g" else OPERATIONS[name]
        assert_close(got[name], expected, operation, name)


def test_short_table_names_cases():
    assert {case.name for case in CASES} >= set(SHORT)
