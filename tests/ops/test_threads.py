"""Any number of OpenMP threads, and calls from several Python threads at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conv_cases import CASES, Case
from definition import mask_of
from problem import assert_equals_definition, derivatives, expected, masked, problem

import sparsemeta as sm

pytestmark = pytest.mark.extension
# Large enough to be shared among threads, by images and by tasks: fewer tasks than threads, as many, and more.
NAMES = ("inner-layer", "first-layer", "widening", "batch-75", "tasks-many")
LARGE = [case for case in CASES if case.name in NAMES] + [
    Case("two-tasks", (16, 16, 3, 3), (21, 21), 5, padding=1, tasks=2, x="channels_last"),
    Case("three-tasks", (16, 16, 3, 3), (21, 21), 5, padding=1, stride=2, tasks=3, g="transposed"),
    Case("wide-line", (8, 8, 1, 3), (1, 9000), 2, padding=(0, 1), density=0.5),
    # Few tiles, so that threads share the code, or the groups of lines of a weight gradient.
    Case("few-images", (64, 64, 3, 3), (14, 14), 5, padding=1, density=0.2),
    Case("few-small-images", (64, 64, 3, 3), (3, 3), 10, padding=1, density=0.3),
    Case("one-small-image", (64, 64, 3, 3), (7, 7), 1, padding=1, density=0.5),
    Case("many-lines", (96, 32, 3, 3), (7, 7), 9, padding=1, density=0.1),
]
large = pytest.mark.parametrize("case", LARGE, ids=lambda case: case.name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("threads", [2, 3])
@large
def test_any_number_of_threads_equals_definition(case, threads, dtype):
    expected(case)  # on one thread: PyTorch's would compete with those of other processes
    torch.set_num_threads(threads)
    assert_equals_definition(case, derivatives(masked(case, "cpu"), problem(case, dtype)), dtype)


@pytest.mark.parametrize("threads", [1, 2, 3])
@large
def test_same_threads_same_bits(case, threads):
    torch.set_num_threads(threads)
    conv, p = masked(case, "cpu"), problem(case, torch.float32)
    first, *others = [derivatives(conv, p) for _ in range(3)]
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in first if name != "gradient of bias")


@pytest.mark.parametrize("threads", [1, 2])
def test_concurrent_calls_on_one_pattern(threads):
    """Two callers start together on a pattern that has not been used, each with other sizes and dtypes."""
    torch.set_num_threads(threads)
    images = (10, 10), (9, 12), (11, 5), (8, 8)
    cases = [Case("one-pattern", (32, 16, 3, 3), image, 5, padding=1) for image in images]
    pattern = sm.Pattern.from_mask(mask_of(cases[0]))
    start = threading.Barrier(2)

    def work(case: Case, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        start.wait()
        return [derivatives(masked(case, "cpu", pattern), problem(case, dtype)) for _ in range(4)]

    with ThreadPoolExecutor(2) as pool:
        given = [(case, dtype) for dtype in (torch.float32, torch.float64) for case in cases]
        results = list(pool.map(work, *zip(*given, strict=True)))
    for (case, dtype), repeated in zip(given, results, strict=True):
        for actual in repeated:
            assert_equals_definition(case, actual, dtype)
