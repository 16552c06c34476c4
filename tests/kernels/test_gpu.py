"""The Triton kernels on a GPU against the definition: the same table as through the interpreter."""

from __future__ import annotations

import pytest
import torch
from block_cases import CASES, SHORT
from problem import OPERATIONS, Problem, dense, derivatives, masked, problem
from tolerances import assert_close

import sparsemeta as sm
from sparsemeta.backends import triton

pytestmark = pytest.mark.gpu


def on_gpu(p: Problem) -> Problem:
    """The same numbers there."""
    moved = {n: t if t is None else t.detach().cuda().requires_grad_() for n, t in vars(p).items() if n != "cotangents"}
    return Problem(**moved, cotangents=[t.cuda() for t in p.cotangents])


def assert_right(case, dtype) -> None:
    """Value, first and second derivatives, against the definition in float64 of the operands in `dtype`."""
    p = problem(case, dtype)
    got = derivatives(masked(case, "triton"), on_gpu(p))
    for name in ("x", "values", "bias", "g"):
        if getattr(p, name) is not None:
            setattr(p, name, getattr(p, name).detach().double().requires_grad_())
    p.cotangents = [t.double() for t in p.cotangents]
    for name, expected in derivatives(dense(case), p).items():
        halves = dtype != torch.float32 and name == "second derivative of g"
        assert_close(got[name].cpu(), expected, "sum of results" if halves else OPERATIONS[name], name)


@pytest.mark.parametrize("case", [case for case in CASES if case.tasks != 0], ids=lambda case: case.name)
def test_strict_float32(case, poison, monkeypatch):
    monkeypatch.setattr(triton, "allow_tf32", lambda: False)
    assert_right(case, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["f16", "bf16"])
@pytest.mark.parametrize("case", [case for case in CASES if case.name in SHORT], ids=lambda case: case.name)
def test_half_precision(case, dtype, poison):
    assert_right(case, dtype)


def test_tf32_is_within_its_rounding_and_the_same_bits_every_time(monkeypatch):
    monkeypatch.setattr(triton, "allow_tf32", lambda: True)
    mask = (torch.rand(4, 4, 3, 3) < 0.3).repeat_interleave(16, 0).repeat_interleave(16, 1)
    pattern = sm.Pattern.from_mask(mask, (16, 16))
    x, values = torch.randn(25, 64, 21, 21), torch.randn(pattern.nnz)
    expected = torch.nn.functional.conv2d(x.double(), pattern.expand(values).double(), padding=1)
    results = [
        sm.masked_conv2d(x.cuda(), values.cuda(), pattern, padding=1, backend="triton").cpu() for _ in range(2)
    ]
    assert torch.equal(*results)
    assert (results[0] - expected).abs().max() < 4e-3 * expected.abs().max()  # 10 bits of each factor


def test_a_captured_graph_replays_with_new_values():
    pattern = sm.Pattern.from_mask(torch.ones(32, 32, 3, 3).bool(), (32, 32))
    x, values = torch.randn(2, 32, 8, 8, device="cuda"), torch.randn(pattern.nnz, device="cuda")
    run = lambda: sm.masked_conv2d(x, values, pattern, padding=1, backend="triton")  # noqa: E731  captured below
    run()  # compiles, and makes the tables, before the capture
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = run()
    values.mul_(2)
    graph.replay()
    torch.testing.assert_close(y, run(), rtol=0, atol=0)


def test_a_table_outlives_its_pattern_until_other_streams_are_done():
    pattern = sm.Pattern.from_mask(torch.ones(32, 32, 3, 3).bool(), (32, 32))
    x, values = torch.randn(2, 32, 8, 8, device="cuda"), torch.randn(pattern.nnz, device="cuda")
    expected = sm.masked_conv2d(x, values, pattern, padding=1, backend="triton")  # makes the tables on this stream
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        y = sm.masked_conv2d(x, values, pattern, padding=1, backend="triton")
    del pattern
    written = [torch.full((n,), -1, dtype=torch.int32, device="cuda") for n in range(1, 129)]  # over what is free
    torch.cuda.current_stream().wait_stream(stream)
    assert torch.equal(y, expected) and written
