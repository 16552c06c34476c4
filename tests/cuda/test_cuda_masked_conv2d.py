"""The programs of the CUDA kernels, run on the CPU thread by thread, against the definition.

What is tested is the arithmetic of tiles, halos, offsets, tails and task strides that a GPU will execute: both are
compiled from csrc/cuda/masked_conv2d.h. Outputs, workspaces, registers and shared memory start as NaN.
"""

from __future__ import annotations

import pytest
import torch
from conv_cases import CASES, Case
from problem import OPERATIONS, assert_equals_definition, derivatives, masked, problem
from rounded import rounded
from test_random_geometry import random_case
from tolerances import assert_close

import sparsemeta as sm
from sparsemeta.backends import cuda, cuda_table
from sparsemeta.ops.conv import Conv

pytestmark = [pytest.mark.extension, pytest.mark.usefixtures("emulated")]
cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@pytest.mark.parametrize("pixels", [8, 2])
@cases
def test_equals_definition_with_every_tile(case, pixels, monkeypatch):
    monkeypatch.setattr(cuda_table, "PIXELS", (pixels,))
    assert_equals_definition(case, derivatives(masked(case, "cuda"), problem(case, torch.float32)), torch.float32)


# The definition stacks one result for each task, of which there must be one; no complex numbers have parts in bfloat16.
IN_BF16 = [c for c in CASES if c.tasks != 0 and "negated" not in (c.x, c.g)]


@pytest.mark.parametrize("case", IN_BF16, ids=lambda case: case.name)
def test_equals_definition_in_bf16(case):
    p, expected = rounded(case)
    actual = derivatives(masked(case, "cuda"), p)
    for name, wanted in expected.items():
        assert actual[name].dtype == torch.bfloat16
        assert_close(actual[name], wanted, OPERATIONS[name], name)


@pytest.mark.parametrize("seed", range(100))
def test_random_geometry(seed):
    case = random_case(seed)
    assert_equals_definition(case, derivatives(masked(case, "cuda"), problem(case, torch.float32)), torch.float32)


@pytest.mark.parametrize("processors", [1, 5, 100])
@pytest.mark.parametrize("name", ["inner-layer", "tasks", "batch-75", "stride-2", "batch-0"])
def test_sums_in_one_part_and_in_many(name, processors, monkeypatch):
    """The weight gradient, its tiles divided among few and many blocks; the same division gives the same bits."""
    for module in (cuda, cuda_table):
        monkeypatch.setattr(module, "processors", lambda device: processors)
    [case] = [c for c in CASES if c.name == name]
    actual = derivatives(masked(case, "cuda"), problem(case, torch.float32))
    assert_equals_definition(case, actual, torch.float32)
    again = derivatives(masked(case, "cuda"), problem(case, torch.float32))
    assert torch.equal(actual["gradient of values"], again["gradient of values"])


@pytest.mark.parametrize("stride", [1, 2])
def test_nothing_around_the_image_is_read(stride):
    case = Case("guarded", (7, 3, 3, 3), (7, 9), padding=1, stride=stride, bias=False)
    p = problem(case, torch.float32)
    around = torch.full((7, 5, 9, 11), torch.nan)
    x = around[1:-1, 1:-1, 1:-1, 1:-1].copy_(p.x.detach())
    y = masked(case, "cuda")(x, p.values.detach(), None)
    assert_close(y, masked(case, "dense")(x.double(), p.values.detach().double(), None), "masked_conv2d")


@cases
def test_blocks_fit_in_shared_memory(case):
    pattern = masked_pattern(case)
    conv = Conv.make(pattern, **case.arguments, backend="cuda")
    for kind in (cuda.FORWARD, cuda.INPUT_GRAD, cuda.WEIGHT_GRAD):
        for pixels in cuda_table.PIXELS:
            plan = cuda_table.one_table(kind, conv, case.image, pixels, torch.device("cpu")).plan
            assert plan.shared_bytes() <= 48 * 1024


def masked_pattern(case: Case) -> sm.Pattern:
    return sm.Pattern.from_mask(torch.rand(case.weight) < case.density)


def test_wide_dilation_needs_no_halo_of_its_reach():
    """7x7 taps 50 apart reach 301 pixels: 90 000 of them would not fit."""
    case = Case("far", (7, 3, 7, 7), (20, 20), padding=150, dilation=50, batch=2)
    assert_equals_definition(case, derivatives(masked(case, "cuda"), problem(case, torch.float32)), torch.float32)


def test_kernel_over_shared_memory_is_refused():
    pattern = sm.Pattern.from_mask(torch.ones(1, 1, 120, 120, dtype=torch.bool))
    with pytest.raises(ValueError, match='48 KB of shared memory, got a kernel with 120x120 taps; use backend="dense"'):
        sm.masked_conv2d(torch.rand(1, 1, 120, 120), torch.rand(120 * 120), pattern, backend="cuda")


def test_tasks_are_one_launch(monkeypatch):
    launches = []
    launching = cuda.launching
    monkeypatch.setattr(cuda, "launching", lambda name, *t: launches.append(name) or launching(name, *t))
    pattern = sm.Pattern.from_mask(torch.rand(8, 3, 3, 3) < 0.5)
    x, values = torch.rand(6, 2, 3, 5, 5), torch.rand(6, pattern.nnz)

    def conv(x, values):
        return sm.masked_conv2d(x, values, pattern, padding=1, backend="cuda")

    y = torch.vmap(conv)(x, values)
    torch.vmap(torch.func.grad(lambda x, values: conv(x, values).square().sum(), (0, 1)))(x, values)
    assert sorted(launches) == ["masked_conv2d"] * 2 + ["masked_conv2d_input_grad", "masked_conv2d_weight_grad"]
    assert_close(y[3], sm.masked_conv2d(x[3].double(), values[3].double(), pattern, padding=1), "masked_conv2d")
