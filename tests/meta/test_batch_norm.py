"""The batch-norm modes against batch norm written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsemeta.meta import BN_MODES, MAML

EPS = 1e-5


def by_hand(weights: dict[str, Tensor], x: Tensor, statistics_of: Tensor | None, stored: tuple | None = None) -> Tensor:
    """``make_net`` on ``x``, normalised with the statistics of another batch, or with stored ones."""

    def convolved(batch: Tensor) -> Tensor:
        return F.conv2d(batch, weights["0.weight"], weights["0.bias"], stride=2)

    y = convolved(x)
    if stored is None:
        other = convolved(statistics_of)
        mean = other.mean((0, 2, 3), keepdim=True)
        variance = (other - mean).square().mean((0, 2, 3), keepdim=True)
    else:
        mean, variance = (s[:, None, None] for s in stored)
    y = (y - mean) / (variance + EPS).sqrt()
    y = F.softplus(y * weights["1.weight"][:, None, None] + weights["1.bias"][:, None, None])
    return F.linear(y.flatten(1), weights["5.weight"], weights["5.bias"])


def stored_net(net) -> nn.Module:
    model = net(track_running_stats=True).double()
    model[1].running_mean.normal_()
    model[1].running_var.uniform_(0.5, 2)
    return model


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mode", ["transductive", "inductive", "frozen"])
def test_modes_are_what_they_say(net, task, mode, training):
    model = stored_net(net).train(training)
    clone = MAML(model, lr=0.5, bn_mode=mode).clone()
    support_x, support_y, query_x, query_y = task
    stored = (model[1].running_mean, model[1].running_var) if mode == "frozen" else None
    weights = dict(model.named_parameters())
    for _ in range(3):
        logits = by_hand(weights, support_x, support_x, stored)
        torch.testing.assert_close(clone(support_x), logits, rtol=1e-10, atol=1e-10)
        grads = torch.autograd.grad(F.cross_entropy(logits, support_y), list(weights.values()), create_graph=True)
        weights = {name: p - 0.5 * g for (name, p), g in zip(weights.items(), grads, strict=True)}
        clone.adapt(F.cross_entropy(clone(support_x), support_y))

    expected = by_hand(weights, query_x, support_x if mode == "inductive" else query_x, stored)
    torch.testing.assert_close(clone(query_x), expected, rtol=1e-10, atol=1e-10)
    outcomes = clone(query_x), expected
    meta = [torch.autograd.grad(F.cross_entropy(y, query_y), list(model.parameters())) for y in outcomes]
    for got, wanted in zip(*meta, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("mode", ["inductive", "frozen"])
def test_a_query_image_stands_alone(net, task, mode):
    clone = MAML(stored_net(net), lr=0.5, bn_mode=mode).clone()
    clone.adapt(F.cross_entropy(clone(task[0]), task[1]))
    together = clone(task[2])
    torch.testing.assert_close(torch.cat([clone(image[None]) for image in task[2]]), together, rtol=1e-10, atol=1e-10)


def test_inductive_support_is_the_batch_of_the_first_adaptation(net, task):
    support_x, support_y, query_x, _ = task
    clone = MAML(net().double(), lr=0.5, bn_mode="inductive").clone()
    before = clone(query_x)
    torch.testing.assert_close(before, by_hand(clone.weights, query_x, query_x))
    for batch in (support_x, support_x.clone(), support_x + 1):
        torch.testing.assert_close(clone(batch), by_hand(clone.weights, batch, support_x))
        clone.adapt(F.cross_entropy(clone(batch), support_y))
    nested = clone.clone()
    torch.testing.assert_close(nested(query_x), by_hand(clone.weights, query_x, support_x))


@pytest.mark.parametrize("mode", BN_MODES)
@pytest.mark.parametrize("training", [True, False])
def test_model_is_left_as_it_was(net, task, mode, training):
    model = stored_net(net).train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attributes = dict(vars(model[1]))
    learner = MAML(model, lr=0.5, bn_mode=mode)
    clone = learner.clone()
    clone.adapt(F.cross_entropy(clone(task[0]), task[1]))
    clone(task[2])
    learner(task[2])
    with pytest.raises(RuntimeError):
        clone(torch.zeros(1, 7, 8, 8))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert dict(vars(model[1])) == attributes


def test_1d_without_affine():
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, affine=False)).double()
    clone = MAML(model, bn_mode="inductive").clone()
    x, query = torch.randn(5, 4, dtype=torch.float64), torch.randn(1, 4, dtype=torch.float64)
    clone.adapt(clone(x).pow(3).sum())
    hidden = F.linear(x, *clone.weights.values())
    expected = (F.linear(query, *clone.weights.values()) - hidden.mean(0)) / (hidden.var(0, correction=0) + EPS).sqrt()
    torch.testing.assert_close(clone(query), expected)


def test_bad_modes_are_named(net):
    with pytest.raises(ValueError, match="one of 'transductive', 'inductive', 'frozen', 'per_step'; got 'eval'"):
        MAML(net(), bn_mode="eval")
    with pytest.raises(ValueError, match=r"got none in \['1'\].*track_running_stats=True"):
        MAML(net(), bn_mode="frozen")
