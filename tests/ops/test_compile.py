"""The operators under PyTorch's tracers: `torch.compile`, `opcheck`, `make_fx`, fake tensors."""

from __future__ import annotations

import pytest
import torch
from conv_cases import CASES, Case
from definition import mask_of
from problem import assert_equals_definition, derivatives, masked, problem
from tolerances import assert_close
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import sparsemeta as sm
from sparsemeta.ops.conv import Conv

pytestmark = pytest.mark.extension
COMPILED = (
    "3x3-no-padding", "same-4x3-dilated", "stride-over-kernel", "depthwise", "blocks-4x4", "nothing-kept",
    "x-channels-last", "g-channels-last", "g-scalar", "tasks", "tasks-shared-x-and-bias",
)  # fmt: skip
SMALL = Case("small", (4, 3, 3, 2), (5, 6), 2, stride=(2, 1), padding=1, groups=2, density=0.4)


def cases(*names: str):
    return pytest.mark.parametrize("case", [case for case in CASES if case.name in names], ids=lambda case: case.name)


@pytest.fixture(autouse=True)
def _nothing_compiled_yet():
    torch._dynamo.reset()


def gradients(function, p):
    y = function(p.x, p.values, p.bias)
    return y, *torch.autograd.grad(y, p.operands, p.g)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@cases(*COMPILED)
def test_first_order_equals_eager(case, dtype):
    function, p = masked(case, "auto"), problem(case, dtype)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    *actual, bias = gradients(compiled, p)
    *wanted, wanted_bias = gradients(function, p)
    assert all(map(torch.equal, actual, wanted))  # the same kernels on the same numbers
    assert_close(bias, wanted_bias.double(), "bias gradient")  # summed by PyTorch, from another layout of g


def test_one_graph_serves_every_batch_size():
    counter = CompileCounterWithBackend("aot_eager")
    function, p = masked(SMALL, "cpu"), problem(SMALL, torch.float64)
    compiled = torch.compile(function, fullgraph=True, backend=counter, dynamic=True)
    for batch in (2, 3, 7, 25):
        x = torch.randn(batch, *p.x.shape[1:]).double()
        assert torch.equal(compiled(x, p.values, p.bias), function(x, p.values, p.bias))
    assert counter.frame_count == 1
    for batch in (0, 1):  # sizes for which PyTorch makes graphs of their own
        x = torch.randn(batch, *p.x.shape[1:]).double()
        assert torch.equal(compiled(x, p.values, p.bias), function(x, p.values, p.bias))


def test_image_sizes_may_change():
    function, p = masked(SMALL, "cpu"), problem(SMALL, torch.float64)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)
    for height, width in ((5, 6), (8, 9), (4, 11)):
        x = torch.randn(2, 6, height, width).double()
        assert torch.equal(compiled(x, p.values, p.bias), function(x, p.values, p.bias))


def test_every_pattern_keeps_its_own_graph():
    @torch.compile(fullgraph=True, backend="aot_eager")
    def compiled(x, values, pattern):
        return sm.masked_conv2d(x, values, pattern, padding=1)

    x, weight = torch.randn(2, 4, 5, 5), torch.randn(4, 4, 3, 3)
    for density in (0.2, 0.5, 0.2):
        pattern = sm.Pattern.from_mask(torch.rand(weight.shape) < density)
        values = pattern.compress(weight)
        assert torch.equal(compiled(x, values, pattern), sm.masked_conv2d(x, values, pattern, padding=1))


def test_masked_linear():
    """Also at the first use of a pattern, whose convolution form cannot be made inside a graph."""

    @torch.compile(fullgraph=True, backend="aot_eager")
    def compiled(x, values, pattern):
        return sm.masked_linear(x, values, pattern)

    x = torch.randn(7, 6, requires_grad=True)
    for _ in range(2):
        pattern = sm.Pattern.from_mask(torch.rand(4, 6) < 0.5)
        values = torch.randn(pattern.nnz, requires_grad=True)
        y, wanted = compiled(x, values, pattern), sm.masked_linear(x, values, pattern)
        assert torch.equal(y, wanted)
        g = torch.randn_like(y)
        for pair in zip(*(torch.autograd.grad(t, (x, values), g) for t in (y, wanted)), strict=True):
            assert torch.equal(*pair)


def test_inductor():
    function, p = masked(SMALL, "cpu"), problem(SMALL, torch.float32)
    compiled = torch.compile(lambda x, values: function(x, values, None), fullgraph=True)
    y, wanted = compiled(p.x, p.values), function(p.x, p.values, None)
    assert torch.equal(y, wanted)
    for pair in zip(*(torch.autograd.grad(t, (p.x, p.values), p.g) for t in (y, wanted)), strict=True):
        assert torch.equal(*pair)


@cases("3x3-no-padding", "x-channels-last-strided", "tasks-shared-bias", "no-bias")
def test_operators_are_registered_as_torch_library_expects(case):
    conv = Conv.make(sm.Pattern.from_mask(mask_of(case)), backend="cpu", **case.arguments)
    p, operators = problem(case, torch.float64), torch.ops.sparsemeta
    for operator, operands in (
        (operators.masked_conv2d, (p.x, p.values, p.bias)),
        (operators.masked_conv2d_input_grad, (p.g, p.values, *case.image)),
        (operators.masked_conv2d_weight_grad, (p.g, p.x)),
    ):
        torch.library.opcheck(operator.default, (*operands, *conv.flat()))


@cases("3x3-no-padding", "groups-2-strided", "tasks-shared-bias")
def test_operators_alone_equal_definition(case):
    """To second order, which torch.compile does not ask for but a trace of a gradient of a gradient does."""
    conv = Conv.make(sm.Pattern.from_mask(mask_of(case)), backend="cpu", **case.arguments)

    def operator(x, values, bias):
        return torch.ops.sparsemeta.masked_conv2d(x, values, bias, *conv.flat())

    assert_equals_definition(case, derivatives(operator, problem(case, torch.float64)), torch.float64)


def test_traced_graph_computes():
    """A trace that saw the kernels' memory instead of the operator would return what was there when it was made."""
    function, p = masked(SMALL, "cpu"), problem(SMALL, torch.float64)
    given = [t.detach() for t in p.operands]
    graph = make_fx(torch.func.grad(lambda *operands: function(*operands).square().sum(), (0, 1, 2)))(*given)
    doubled = [2 * t for t in given]
    wanted = torch.func.grad(lambda *operands: function(*operands).square().sum(), (0, 1, 2))(*doubled)
    assert all(torch.equal(*pair) for pair in zip(graph(*doubled), wanted, strict=True))


def test_fake_tensors_have_the_right_shape():
    function, p, mode = masked(SMALL, "cpu"), problem(SMALL, torch.float32), FakeTensorMode()
    fakes = [mode.from_tensor(t) for t in p.operands]
    with mode:
        y = function(*fakes)
    assert y.shape == p.g.shape and y.dtype == torch.float32
