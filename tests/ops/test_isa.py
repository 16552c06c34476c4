"""Every instruction set of this machine computes the same, and the choice can be forced."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conv_cases import CASES, Case
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


# Kernels: the compiled ones of every set, and those generated for each pattern.
KERNELS = {"generated": ("avx512", True)} | {name: (name, False) for name in ISAS}


@pytest.fixture(params=KERNELS)
def kernels(request) -> Iterator[str]:
    """A choice of kernels; a pattern keeps those of its first use, so the tests make theirs inside."""
    isa, generate = KERNELS[request.param]
    extension = sm.backends.cpu.extension()
    if isa not in extension.isas():
        pytest.skip(f"this machine has no {isa}")
    before = extension.isa()
    extension.set_isa(isa)
    extension.set_generate(generate)
    yield isa
    extension.set_isa(before)
    extension.set_generate(os.environ.get("SPARSEMETA_GENERATE") != "0")  # as at import


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("case", [case for case in CASES if case.name in NAMES], ids=lambda case: case.name)
def test_every_kernel_equals_definition(kernels, case, dtype):
    assert sm.backends.cpu.isa() == kernels
    assert_equals_definition(case, derivatives(masked(case, "cpu"), problem(case, dtype)), dtype)


@pytest.mark.parametrize("threads", [1, 2])
def test_same_threads_same_bits(kernels, threads):
    torch.set_num_threads(threads)
    case = next(case for case in CASES if case.name == "inner-layer")
    conv, p = masked(case, "cpu"), problem(case, torch.float32)
    first, second = (derivatives(conv, p) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first if name != "gradient of bias")


def test_threads(kernels):
    case = next(case for case in CASES if case.name == "inner-layer")
    expected(case)  # on one thread: PyTorch's would compete with those of other processes
    torch.set_num_threads(2)
    assert_equals_definition(case, derivatives(masked(case, "cpu"), problem(case, torch.float32)), torch.float32)


def generated_bytes() -> int:
    """Size of this process's executable memory that belongs to no file."""
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    ranges = [fields[0].split("-") for fields in maps if "x" in fields[1] and len(fields) == 5]
    return sum(int(end, 16) - int(begin, 16) for begin, end in ranges)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux lists the memory of a process here")
def test_generated_code_dies_with_its_pattern():
    case = Case("short-lived", (32, 16, 3, 3), (6, 6), 2, padding=1)
    before = generated_bytes()
    for _ in range(3):
        derivatives(masked(case, "cpu"), problem(case, torch.float32))
    gc.collect()
    assert generated_bytes() <= before


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
