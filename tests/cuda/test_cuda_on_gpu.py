"""On a GPU: the case table, streams, CUDA graphs, several devices, and no wait for the device. Not yet run on one."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch
from conv_cases import CASES
from problem import OPERATIONS, Problem, derivatives, expected, masked, problem
from rounded import rounded
from tolerances import assert_close

import sparsemeta as sm
from sparsemeta.backends import cuda, cuda_compile

pytestmark = pytest.mark.gpu
CONV = {"padding": 1, "backend": "cuda"}


def on_gpu(p: Problem) -> Problem:
    """The same operands in the memory of the GPU, with the same strides."""

    def move(t):
        return None if t is None else t.detach().cuda().requires_grad_()

    return replace(p, x=move(p.x), values=move(p.values), bias=move(p.bias), g=move(p.g), cotangents=[
        move(t) for t in p.cotangents
    ])  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_equals_definition(case, poison):
    actual = derivatives(masked(case, "cuda"), on_gpu(problem(case, torch.float32)))
    for name, wanted in expected(case).items():
        assert_close(actual[name].cpu(), wanted, OPERATIONS[name], name)


@pytest.mark.parametrize("case", [c for c in CASES if c.tasks != 0 and "negated" not in (c.x, c.g)], ids=str)
def test_equals_definition_in_bf16(case, poison):
    p, wanted = rounded(case)
    actual = derivatives(masked(case, "cuda"), on_gpu(p))
    for name in wanted:
        assert_close(actual[name].cpu(), wanted[name], OPERATIONS[name], name)


@pytest.fixture
def generated(monkeypatch):
    """Forward and input gradient by generated kernels."""
    if missing := cuda_compile.missing():
        pytest.skip(f"no compiler: {missing}")
    for name in ("masked_conv2d", "masked_conv2d_input_grad"):
        monkeypatch.setattr(cuda, name, functools.partial(getattr(cuda, name), way="generated"))


@pytest.mark.parametrize("case", [c for c in CASES if c.density > 0], ids=lambda case: case.name)
def test_generated_kernels_equal_the_definition(case, generated, poison):
    actual = derivatives(masked(case, "cuda"), on_gpu(problem(case, torch.float32)))
    for name, wanted in expected(case).items():
        assert_close(actual[name].cpu(), wanted, OPERATIONS[name], name)


@pytest.fixture
def layer():
    pattern = sm.Pattern.from_mask(torch.rand(64, 64, 3, 3) < 0.1)
    x = torch.randn(25, 64, 20, 20, device="cuda", requires_grad=True)
    return x, torch.randn(pattern.nnz, device="cuda", requires_grad=True), pattern


def gradients(x, values, pattern):
    y = sm.masked_conv2d(x, values, pattern, **CONV)
    return y, *torch.autograd.grad(y.square().sum(), (x, values))


def test_the_same_bits_every_time(layer):
    for a, b in zip(gradients(*layer), gradients(*layer), strict=True):
        assert torch.equal(a, b)


def test_runs_on_the_current_stream(layer):
    """The kernel reads what an earlier kernel of the same stream writes, late."""
    x, values, pattern = layer
    wanted = sm.masked_conv2d(x, values, pattern, **CONV)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        late = torch.zeros_like(x)
        torch.cuda._sleep(100_000_000)
        late.copy_(x)
        y = sm.masked_conv2d(late, values, pattern, **CONV)
    torch.cuda.current_stream().wait_stream(stream)
    assert torch.equal(y, wanted)


def test_a_table_outlives_its_pattern_until_other_streams_are_done(layer):
    x, values, pattern = (t.detach() if isinstance(t, torch.Tensor) else t for t in layer)
    other = sm.Pattern.from_mask(pattern.mask())
    wanted = sm.masked_conv2d(x, values, other, **CONV)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        y = sm.masked_conv2d(x, values, other, **CONV)
    del other
    written = [torch.full((2**14 * n,), -1, dtype=torch.int32, device="cuda") for n in range(1, 9)]  # over what is free
    torch.cuda.current_stream().wait_stream(stream)
    assert torch.equal(y, wanted) and written


def test_generated_kernels_are_captured_in_a_graph(layer, generated):
    test_is_captured_in_a_graph(layer)


def test_is_captured_in_a_graph(layer):
    """Forward, both gradients and the inner update; replayed on other numbers."""
    x, values, pattern = layer

    def step():
        y, to_x, to_values = gradients(x, values, pattern)
        return y, to_x, *cuda.inner_update([values], [to_values], [0.1])

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()  # copies the pattern's tables to the device
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        x.normal_()
    graph.replay()
    for got, wanted in zip(captured, step(), strict=True):
        assert torch.equal(got, wanted)


def test_nothing_waits_for_the_device(layer):
    gradients(*layer)
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        gradients(*layer)
    finally:
        torch.cuda.set_sync_debug_mode(before)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_runs_where_the_operands_are(layer):
    x, values, pattern = layer
    wanted = sm.masked_conv2d(x, values, pattern, **CONV)
    y = sm.masked_conv2d(x.to("cuda:1"), values.to("cuda:1"), pattern, **CONV)
    assert y.device.index == 1 and torch.cuda.current_device() == 0
    torch.testing.assert_close(y.to(wanted.device), wanted, rtol=1e-6, atol=1e-6)
