"""Batch norm of each inner step: its own affine parameters, learned outside the inner loop."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

import sparsemeta as sm
from sparsemeta.meta import MAML, MAMLPlusPlus
from sparsemeta.meta.meta_step import adapted
from sparsemeta.nn import fused
from sparsemeta.ops.norm_act_pool import norm_act_pool

LR = 0.3


@pytest.mark.parametrize("second_order", ["unrolled", "stepwise"])
def test_affine_of_each_step_is_learned_outside(written, task, second_order):
    learner = MAML(written.model, LR, bn_mode="per_step", steps=2, second_order=second_order)
    with torch.no_grad():
        learner.norms.get_parameter("1.weight").uniform_(0.5, 1.5)
        learner.norms.get_parameter("1.bias").uniform_(-1, 1)
    own = {key: learner.norms.get_parameter(f"1.{key}") for key in ("weight", "bias")}
    sets = {key: p.detach().clone().requires_grad_() for key, p in own.items()}
    leaves = {name: p for name, p in written.leaves().items() if not name.startswith("1.")}
    assert list(learner.start()) == list(leaves) and sets["weight"].shape == (3, 4)

    weights = leaves
    for step in range(2):
        of_step = {f"1.{key}": value[step] for key, value in sets.items()}
        loss = written.loss(weights | of_step, *task[:2])
        grads = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        weights = {name: w - LR * g for (name, w), g in zip(weights.items(), grads, strict=True)}
    loss = written.loss(weights | {f"1.{key}": value[2] for key, value in sets.items()}, *task[2:])
    expected = torch.autograd.grad(loss, [*leaves.values(), *sets.values()])

    clone = adapted(learner, *task[:2], 2)
    F.cross_entropy(clone(task[2]), task[3]).backward()
    moved = [*(learner.module.get_parameter(name) for name in leaves), *own.values()]
    for p, wanted in zip(moved, expected, strict=True):
        torch.testing.assert_close(p.grad, wanted, rtol=1e-10, atol=1e-10)
    assert learner.module[1].weight.grad is None


def test_modes_of_the_model_and_steps_beyond_the_sets(net, task):
    learner = MAMLPlusPlus(net(track_running_stats=True).double(), LR, steps=2, bn_mode="per_step")
    with torch.no_grad():
        learner.norms.get_parameter("1.bias")[2] = 3.0
    before = {name: t.clone() for name, t in learner.module.named_buffers()}
    trained = adapted(learner, *task[:2], 5)
    after = dict(trained.weights) | {"1.weight": learner.module[1].weight, "1.bias": torch.full((4,), 3.0).double()}
    torch.testing.assert_close(trained(task[2]), functional_call(net().double(), after, (task[2],)))
    learner.eval()
    assert torch.equal(adapted(learner, *task[:2], 5)(task[2]), trained(task[2]))
    assert all(torch.equal(t, before[name]) for name, t in learner.module.named_buffers())


def test_sets_are_part_of_the_state_and_frozen_ones_stay_frozen(net, task):
    learner, other = (MAML(net().double(), LR, bn_mode="per_step", steps=2) for _ in range(2))
    with torch.no_grad():
        learner.norms.get_parameter("1.bias").normal_()
    other.load_state_dict(learner.state_dict())
    assert torch.equal(*(adapted(each, *task[:2], 2)(task[2]) for each in (learner, other)))
    model = net()
    model[1].requires_grad_(False)
    assert not any(p.requires_grad for p in MAML(model, bn_mode="per_step").norms.parameters())


@pytest.mark.extension
def test_layers_are_still_fused(monkeypatch):
    model, calls = sm.models.Conv4(ways=3, in_channels=1, hidden=4, image_size=16), []
    sparse = sm.sparsify(model, sm.Ticket.magnitude(model, 0.5))
    monkeypatch.setattr(fused, "norm_act_pool", lambda *args, **more: calls.append(1) or norm_act_pool(*args, **more))
    MAML(sparse, LR, bn_mode="per_step").clone()(torch.randn(3, 1, 16, 16))
    assert len(calls) == 4


def test_without_affine_and_at_the_root():
    bare = MAML(nn.BatchNorm1d(3, affine=False).double(), bn_mode="per_step")
    x = torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(bare(x), (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt())
    with pytest.raises(ValueError, match="expected steps to be an integer of at least 1; got 0"):
        MAML(nn.BatchNorm1d(3), bn_mode="per_step", steps=0)
