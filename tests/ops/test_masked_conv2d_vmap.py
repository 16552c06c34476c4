"""`torch.vmap` of `masked_conv2d` and of its partners: every combination of mapped operands, in one kernel call."""

from __future__ import annotations

import itertools

import pytest
import torch
from conv_cases import BACKENDS, Case
from definition import mask_of
from problem import dense, masked
from tolerances import assert_close
from torch import vmap

import sparsemeta as sm
from sparsemeta.ops.conv import Conv
from sparsemeta.ops.masked_conv2d import InputGrad, MaskedConv2d, WeightGrad

CASE = Case("vmap", (4, 3, 3, 2), (5, 6), 2, stride=(2, 1), padding=1, groups=2, density=0.4)
SIZES = (2, 6, 5, 6), (int(mask_of(CASE).sum()),), (4,)  # of x, values, bias
OUTPUT = (2, 4, 3, 7)
backends = pytest.mark.parametrize("backend", BACKENDS)


def mapped_in(*axes: tuple) -> list[tuple]:
    """Every choice of one axis for each operand (None: not mapped), but not none for all."""
    return [dims for dims in itertools.product(*axes) if any(d is not None for d in dims)]


def draw(sizes, *maps):
    """Random operands with an axis of 3 for each map, the outermost map last."""
    made = []
    for i, size in enumerate(sizes):
        for dims in maps:
            size = size if dims[i] is None else (*size[: dims[i]], 3, *size[dims[i] :])
        made.append(torch.randn(size).double().requires_grad_())
    return made


def loop(function, dims):
    """What `vmap(function, dims)` means."""

    def looped(*operands):
        at = [[t if d is None else t.select(d, i) for t, d in zip(operands, dims, strict=True)] for i in range(3)]
        return torch.stack([function(*given) for given in at])

    return looped


def assert_same_with_gradients(function, definition, operands):
    y, wanted = function(*operands), definition(*operands)
    assert_close(y, wanted, "masked_conv2d")
    g = torch.randn_like(wanted)
    gradients = torch.autograd.grad(y, operands, g), torch.autograd.grad(wanted, operands, g)
    for got, expected in zip(*gradients, strict=True):
        assert_close(got, expected, "masked_conv2d_weight_grad")


@backends
@pytest.mark.parametrize("dims", mapped_in((None, 0, 2, 4), (None, 0, 1), (None, 0, 1)), ids=str)
def test_every_combination(backend, dims):
    assert_same_with_gradients(vmap(masked(CASE, backend), dims), loop(dense(CASE), dims), draw(SIZES, dims))


@backends
@pytest.mark.parametrize("tasks", ["x", "values only", "bias"])
@pytest.mark.parametrize("dims", mapped_in((None, 1), (None, 0), (None, 1)), ids=str)
def test_of_tasks(backend, tasks, dims):
    x, values, bias = SIZES
    sizes = ((2, *x) if tasks != "values only" else x), (2, *values), ((2, *bias) if tasks == "bias" else bias)
    assert_same_with_gradients(vmap(masked(CASE, backend), dims), loop(dense(CASE), dims), draw(sizes, dims))


@backends
@pytest.mark.parametrize("outer", mapped_in((None, 0), (None, 0), (None, 0)), ids=str)
@pytest.mark.parametrize("inner", mapped_in((None, 0), (None, 0), (None, 0)), ids=str)
def test_nested(backend, inner, outer):
    function, definition = vmap(vmap(masked(CASE, backend), inner), outer), loop(loop(dense(CASE), inner), outer)
    assert_same_with_gradients(function, definition, draw(SIZES, inner, outer))


PARTNERS = {
    "forward": (lambda conv: lambda x, v, b: MaskedConv2d.apply(x, v, b, conv), SIZES),
    "input gradient": (lambda conv: lambda g, v: InputGrad.apply(g, v, 5, 6, conv), (OUTPUT, SIZES[1])),
    "weight gradient": (lambda conv: lambda g, x: WeightGrad.apply(g, x, conv), (OUTPUT, SIZES[0])),
}


def conv_of(backend) -> Conv:
    return Conv.make(sm.Pattern.from_mask(mask_of(CASE)), backend=backend, **CASE.arguments)


@pytest.mark.extension
@pytest.mark.parametrize("tasks", [False, True], ids=["one", "tasks"])
@pytest.mark.parametrize("name", PARTNERS)
def test_partners(name, tasks):
    partner, sizes = PARTNERS[name]
    function, sizes = partner(conv_of("cpu")), [(2, *size) if tasks else size for size in sizes]
    for dims in mapped_in(*[(None, 0, 1)] * len(sizes)):
        operands = draw(sizes, dims)
        assert_same_with_gradients(vmap(function, dims), loop(function, dims), operands)


@pytest.mark.extension
@pytest.mark.parametrize("name", PARTNERS)
def test_one_kernel_call_for_the_whole_map(name, monkeypatch):
    partner, sizes = PARTNERS[name]
    calls = []
    for kernel in ("masked_conv2d", "masked_conv2d_input_grad", "masked_conv2d_weight_grad"):
        run = getattr(sm.backends.cpu, kernel)
        monkeypatch.setattr(sm.backends.cpu, kernel, lambda *given, run=run: calls.append(run) or run(*given))
    for dims in mapped_in(*[(None, 0)] * len(sizes)):
        calls.clear()
        vmap(partner(conv_of("cpu")), dims)(*draw(sizes, dims))
        assert len(calls) == 1
