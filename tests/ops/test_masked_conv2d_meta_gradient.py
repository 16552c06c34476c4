"""The meta-gradient: equal to the definition's through three inner steps, and noticing every second-order term."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conv_cases import BACKENDS, Case
from definition import mask_of
from problem import dense, masked
from tolerances import assert_close

from sparsemeta.ops.masked_conv2d import InputGrad, MaskedConv2d, WeightGrad

LAYERS = Case("layer-1", (4, 3, 3, 3), (6, 6), stride=2, padding=1), Case("layer-2", (5, 4, 3, 3), (3, 3), padding=1)


def parameters() -> list[torch.Tensor]:
    """Values and bias of each layer."""
    sizes = [size for layer in LAYERS for size in (int(mask_of(layer).sum()), layer.weight[0])]
    return [torch.randn(size).double().requires_grad_() for size in sizes]


def loss_of(convs, parameters, x, labels):
    hidden = torch.tanh(convs[0](x, *parameters[:2]))
    return F.cross_entropy(convs[1](hidden, *parameters[2:]).mean((-2, -1)), labels)


def meta_gradient(convs, initial, task, steps=3, lr=0.5):
    """Gradient of the query loss after `steps` inner steps, by the initial parameters."""
    support, query = task
    adapted = initial
    for _ in range(steps):
        gradients = torch.autograd.grad(loss_of(convs, adapted, *support), adapted, create_graph=True)
        adapted = [p - lr * g for p, g in zip(adapted, gradients, strict=True)]
    return torch.autograd.grad(loss_of(convs, adapted, *query), initial)


@pytest.fixture
def task():
    return [(torch.randn(10, 3, 6, 6).double(), torch.arange(10) % 5) for _ in range(2)]


def assert_equals_dense(backend, task):
    initial = parameters()
    actual = meta_gradient([masked(layer, backend) for layer in LAYERS], initial, task)
    wanted = meta_gradient([dense(layer) for layer in LAYERS], initial, task)
    for got, expected in zip(actual, wanted, strict=True):
        assert_close(got / expected.norm(), expected / expected.norm(), "meta-gradient")


@pytest.mark.parametrize("backend", BACKENDS)
def test_through_three_steps(backend, task):
    assert_equals_dense(backend, task)


TERMS = {
    "input gradient by the output gradient": (InputGrad, 0),
    "input gradient by the values": (InputGrad, 1),
    "weight gradient by the output gradient": (WeightGrad, 0),
    "weight gradient by the input": (WeightGrad, 1),
}


@pytest.mark.extension
@pytest.mark.parametrize(("function", "dropped"), TERMS.values(), ids=TERMS)
def test_notices_a_dropped_term(function, dropped, task, monkeypatch):
    whole = function.backward

    def backward(ctx, grad):
        return tuple(None if i == dropped else g for i, g in enumerate(whole(ctx, grad)))

    monkeypatch.setattr(function, "backward", staticmethod(backward))
    with pytest.raises(AssertionError, match="meta-gradient"):
        assert_equals_dense("cpu", task)


@pytest.mark.extension
def test_notices_a_backward_of_raw_kernels(task, monkeypatch):
    """The common shape: the gradients are right and carry no graph."""
    whole = MaskedConv2d.backward
    monkeypatch.setattr(MaskedConv2d, "backward", staticmethod(torch.no_grad()(whole)))
    with pytest.raises(AssertionError, match="meta-gradient"):
        assert_equals_dense("cpu", task)
