"""The kernels' programs, run on the CPU thread by thread, against the definition: what a GPU will compute, by index."""

from __future__ import annotations

import pytest
import torch
from conv_cases import CASES
from problem import assert_equals_definition, derivatives, masked, problem

pytestmark = pytest.mark.extension


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_emulated_kernels_equal_definition(case, emulated):
    dtype = torch.float32
    assert_equals_definition(case, derivatives(masked(case, "cuda"), problem(case, dtype)), dtype)
