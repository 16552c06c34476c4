"""Every instruction set of this machine computes the same, and the choice can be forced."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from conv_cases import CASES
from problem import assert_equals_definition, derivatives, expected, masked, problem

import sparsemeta as sm

pytestmark = pytest.mark.extension
ISAS = ("avx512", "avx2", "baseline")
# Every way to pack, tile and unpack; the whole table runs under the machine's best set, or under SPARSEMETA_ISA.
NAMES = (
    "one-weight", "7x7-stem", "first-layer", "inner-layer", "odd-channels", "batch-0", "batch-75",
    "stride-2-shortcut", "stride-over-kernel", "padding-over-kernel-strided", "same-4x3-dilated",
    "dilation-3-stride-2", "groups-2-strided", "depthwise-64", "nothing-kept-no-bias-strided", "one-kept",
    "all-kept", "blocks-16x1", "blocks-4x4", "blocks-8x8-strided", "whole-kernels", "x-sliced", "x-one-pixel",
    "g-batch-last", "g-scalar", "all-channels-last", "tasks-shared-x-and-bias", "tasks-channels-last",
)  # fmt: skip


@pytest.fixture
def isa(request) -> Iterator[str]:
    """Kernels of one instruction set; a pattern keeps those of its first use, so the tests make theirs inside."""
    extension = sm.backends.cpu.extension()
    if request.param not in extension.isas():
        pytest.skip(f"this machine has no {request.param}")
    before = extension.isa()
    extension.set_isa(request.param)
    yield request.param
    extension.set_isa(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("case", [case for case in CASES if case.name in NAMES], ids=lambda case: case.name)
@pytest.mark.parametrize("isa", ISAS, indirect=True)
def test_every_set_equals_definition(isa, case, dtype):
    assert sm.backends.cpu.isa() == isa
    assert_equals_definition(case, derivatives(masked(case, "cpu"), problem(case, dtype)), dtype)


@pytest.mark.parametrize("isa", ISAS, indirect=True)
def test_threads(isa):
    case = next(case for case in CASES if case.name == "inner-layer")
    expected(case)  # on one thread: PyTorch's would compete with those of other processes
    torch.set_num_threads(2)
    assert_equals_definition(case, derivatives(masked(case, "cpu"), problem(case, torch.float32)), torch.float32)


def test_subset_names_cases_of_the_table():
    assert set(NAMES) <= {case.name for case in CASES}


def test_the_best_set_comes_first_and_the_baseline_is_always_there():
    isas = sm.backends.cpu.extension().isas()
    assert isas == [name for name in ISAS if name in isas] and "baseline" in isas


def test_unknown_set_is_refused():
    extension = sm.backends.cpu.extension()
    before = extension.isa()
    with pytest.raises(ValueError, match="expected an instruction set of this machine .*baseline.*, got 'avx1024'"):
        extension.set_isa("avx1024")
    assert extension.isa() == before


def run(isa: str) -> subprocess.CompletedProcess:
    code = "import sparsemeta as sm; sm.backends.available(); print(sm.backends.cpu.isa())"
    environment = os.environ | {"SPARSEMETA_ISA": isa}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


def test_environment_forces_a_set():
    assert run("baseline").stdout.strip() == "baseline"


def test_environment_with_an_unknown_set_is_an_error():
    done = run("sse9")
    assert done.returncode and "expected an instruction set of this machine" in done.stderr and "'sse9'" in done.stderr
