"""What the kernels read and write: all of the output, nothing of the input, no leftovers, no more than is asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conv_cases import BACKENDS, CASES, Case
from definition import mask_of
from problem import assert_equals_definition, dense, derivatives, masked, problem
from tolerances import assert_close

import sparsemeta as sm

backends = pytest.mark.parametrize("backend", BACKENDS)
NAMES = (
    "3x3-tiny-image", "stride-2-shortcut", "same-2x2", "nothing-kept", "all-channels-last", "x-one-image",
    "tasks-shared-x",
)  # fmt: skip
cases = pytest.mark.parametrize("case", [case for case in CASES if case.name in NAMES], ids=lambda case: case.name)
SMALL = Case("small", (4, 3, 3, 3), (5, 6), 3, padding=1, stride=2, density=0.5)


def test_the_tests_of_operations_run_on_poisoned_memory():
    """Else the table would not notice an element that nobody writes."""
    assert torch.empty(100).isnan().all() and torch.ones(1).new_empty(100).isnan().all()


@backends
@cases
def test_inputs_stay_and_outputs_are_new(case, backend):
    p = problem(case, torch.float32)
    given = [*p.operands, p.g, *p.cotangents]
    before = [t.clone() for t in given]
    results = derivatives(masked(case, backend), p)
    assert all(torch.equal(*pair) for pair in zip(given, before, strict=True))
    memory = {t.untyped_storage().data_ptr() for t in given if t.numel()}
    for name, t in results.items():
        if name != "gradient of bias" and t.numel():  # PyTorch sums g, over nothing in an image of one pixel
            assert t.untyped_storage().data_ptr() not in memory, name


@pytest.mark.extension
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@cases
def test_a_call_leaves_nothing_to_the_next(case, dtype):
    """The kernels keep their scratch memory: a call full of NaN goes first."""
    conv, p = masked(case, "cpu"), problem(case, dtype)
    poisoned = problem(case, dtype)
    for t in (poisoned.x, poisoned.values, poisoned.bias, poisoned.g):
        t.data = torch.full_like(t, float("nan"))
    derivatives(conv, poisoned)
    assert_equals_definition(case, derivatives(conv, p), dtype)


@backends
def test_one_pattern_serves_many_geometries(backend):
    """What a pattern keeps for one geometry must not be taken for another."""
    one = Case("one-pattern", (6, 2, 3, 3), (9, 8), 2, density=0.4)
    changes = [
        {"stride": 2}, {"stride": (1, 2)}, {"padding": 1}, {"padding": (0, 1)}, {"padding": "same"}, {"dilation": 2},
        {"dilation": (1, 2)}, {"groups": 2}, {"groups": 3}, {"image": (8, 9)}, {"image": (9, 9)}, {"batch": 3},
    ]  # fmt: skip
    pattern = sm.Pattern.from_mask(mask_of(one))
    for case in [one, *(replace(one, **change) for change in changes), one]:
        actual = derivatives(masked(case, backend, pattern), problem(case, torch.float64))
        assert_equals_definition(case, actual, torch.float64)


@backends
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
def test_nan_stays_in_its_image(backend, memory_format):
    """Images may share padding in memory, but not numbers."""
    conv, p = masked(SMALL, backend), problem(SMALL, torch.float32)
    x, g = (t.detach().clone(memory_format=memory_format) for t in (p.x, p.g))
    x[1] = g[1] = float("nan")
    y = conv(x.requires_grad_(), p.values, p.bias)
    (x_grad,) = torch.autograd.grad(y, x, g)
    for t in (y, x_grad):
        assert t[1].isnan().any() and not t[::2].isnan().any()


@backends
@pytest.mark.parametrize("tasks", [None, 2])
def test_values_and_bias_of_any_strides(backend, tasks):
    case = Case("strides", (4, 3, 3, 3), (5, 6), 3, padding=1, tasks=tasks)
    p = problem(case, torch.float64)
    wanted = dense(case)(p.x, p.values, p.bias)
    values, bias = (torch.stack([-t, t, t + 1], -1)[..., 1] for t in (p.values, p.bias))
    assert_close(masked(case, backend)(p.x, values, bias), wanted, "masked_conv2d")
    if tasks:
        column_major = p.values.detach().T.contiguous().T
        assert_close(masked(case, backend)(p.x, column_major, p.bias), wanted, "masked_conv2d")
        one = p.values[:1].expand_as(p.values)
        assert_close(masked(case, backend)(p.x, one, p.bias), dense(case)(p.x, one, p.bias), "masked_conv2d")


@pytest.mark.extension
@pytest.mark.parametrize("asked", [("x",), ("values",), ("bias",), ("x", "values", "bias")], ids="+".join)
def test_only_the_gradients_asked_for_are_computed(asked, monkeypatch):
    calls = []
    for name in ("masked_conv2d_input_grad", "masked_conv2d_weight_grad"):
        run = getattr(sm.backends.cpu, name)
        monkeypatch.setattr(sm.backends.cpu, name, lambda *given, run=run: calls.append(run.__name__) or run(*given))
    p = problem(SMALL, torch.float32)
    operands = {"x": p.x, "values": p.values, "bias": p.bias}
    y = masked(SMALL, "cpu")(*(t if name in asked else t.detach() for name, t in operands.items()))
    torch.autograd.grad(y, [operands[name] for name in asked], p.g)
    names = {"x": "masked_conv2d_input_grad", "values": "masked_conv2d_weight_grad"}
    assert sorted(calls) == sorted(names[name] for name in asked if name in names)


@pytest.mark.extension
@pytest.mark.parametrize("operand", ["x", "values", "g"])
def test_promised_zeros(operand):
    """Forward-mode tangents may have no memory at all; addresses of it must not be read."""
    p = problem(SMALL, torch.float32)
    given = {"x": p.x.detach(), "values": p.values.detach(), "g": p.g.detach()}
    promised = given | {operand: torch._efficientzerotensor(given[operand].shape)}
    zeros = given | {operand: torch.zeros(given[operand].shape)}
    results = []
    for t in (promised, zeros):
        conv = masked(SMALL, "cpu", sm.Pattern.from_mask(mask_of(SMALL)))
        y, pullback = torch.func.vjp(lambda x, values, conv=conv: conv(x, values, None), t["x"], t["values"])
        results.append((y, *pullback(t["g"])))
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))
