"""Batch norm of each inner step: its own affine parameters and statistics."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from sparsemeta.meta import MAML, MAMLPlusPlus
from sparsemeta.meta.meta_step import adapted

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


@pytest.mark.parametrize("second_order", ["unrolled", "stepwise"])
def test_statistics_of_each_step_are_collected_once_and_used_in_eval(net, task, second_order):
    model = net().double()
    learner = MAMLPlusPlus(model, LR, steps=2, bn_mode="per_step", second_order=second_order)
    clone = adapted(learner, *task[:2], 2)
    F.cross_entropy(clone(task[2]), task[3]).backward()
    seen = [(dict(model.named_parameters()), task[0]), (clone.weights, task[2])]
    for k, (weights, x) in zip((0, 2), seen, strict=True):
        hidden = F.conv2d(x, weights["0.weight"], weights["0.bias"], stride=2).detach()
        mean, variance = hidden.mean((0, 2, 3)), hidden.var((0, 2, 3))
        torch.testing.assert_close(learner.norms.get_buffer("1.running_mean")[k], 0.1 * mean)
        torch.testing.assert_close(learner.norms.get_buffer("1.running_var")[k], 0.9 + 0.1 * variance)

    model.eval()
    held = {name: t.clone() for name, t in learner.norms.named_buffers()}
    after = adapted(learner, *task[:2], 5)  # steps beyond the sets take the last one
    together = after(task[2])
    torch.testing.assert_close(torch.cat([after(image[None]) for image in task[2]]), together, rtol=1e-10, atol=1e-10)
    norm = {f"1.{key}": held[f"1.running_{key}"][2] for key in ("mean", "var")}
    stored = net(track_running_stats=True).double().eval()
    buffers = {"1.running_mean": norm["1.mean"], "1.running_var": norm["1.var"]}
    torch.testing.assert_close(together, functional_call(stored, {**after.weights, **buffers}, (task[2],)))
    assert all(torch.equal(t, held[name]) for name, t in learner.norms.named_buffers())


def test_state_moves_with_the_learner(net, task):
    learner, other = (MAML(net().double(), LR, bn_mode="per_step", steps=2) for _ in range(2))
    adapted(learner, *task[:2], 2)
    other.load_state_dict(learner.state_dict())
    assert torch.equal(other.norms.get_buffer("1.running_mean"), learner.norms.get_buffer("1.running_mean"))
    assert not torch.equal(learner.norms.get_buffer("1.running_mean")[1], torch.zeros(4, dtype=torch.float64))


def test_without_affine_and_at_the_root():
    bare = MAML(nn.BatchNorm1d(3, affine=False).double(), bn_mode="per_step")
    x = torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(bare(x), (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt())
    with pytest.raises(ValueError, match="expected steps to be an integer of at least 1; got 0"):
        MAML(nn.BatchNorm1d(3), bn_mode="per_step", steps=0)
