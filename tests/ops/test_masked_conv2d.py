"""`masked_conv2d` against its definition: value, gradients and second derivatives of the whole table of cases."""

from __future__ import annotations

import pytest
import torch
from conv_cases import BACKENDS, CASES
from problem import assert_equals_definition, derivatives, masked, problem

backends = pytest.mark.parametrize("backend", BACKENDS)


def test_table_is_large_and_its_names_differ():
    assert len({case.name for case in CASES}) == len(CASES) >= 60


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@backends
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_equals_definition(case, backend, dtype):
    assert_equals_definition(case, derivatives(masked(case, backend), problem(case, dtype)), dtype)
