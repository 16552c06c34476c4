"""Second order step by step: the gradient of the unrolled one, in the memory of one step."""

from __future__ import annotations

import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

import sparsemeta as sm
from sparsemeta.meta import MAML
from sparsemeta.meta.meta_step import adapted

LR = 0.3


def meta_gradient(learner: MAML, task: tuple[Tensor, ...], steps: int = 3) -> tuple[Tensor, ...]:
    clone = adapted(learner, *task[:2], steps)
    loss = F.cross_entropy(clone(task[2]), task[3])
    return torch.autograd.grad(loss, [p for p in learner.parameters() if p.requires_grad])


def both(model: nn.Module, task: tuple[Tensor, ...], **options) -> list[tuple[Tensor, ...]]:
    return [meta_gradient(MAML(model, LR, second_order=order, **options), task) for order in ("unrolled", "stepwise")]


@pytest.mark.parametrize("mode", ["transductive", "inductive", "frozen"])
def test_agrees_with_unrolled_and_with_the_definition(written, net, task, mode):
    model = net(track_running_stats=True).double() if mode == "frozen" else written.model
    for unrolled, stepwise in zip(*both(model, task, bn_mode=mode), strict=True):
        torch.testing.assert_close(stepwise, unrolled, rtol=1e-10, atol=1e-12)
    if mode == "transductive":
        leaves = written.leaves()
        weights = leaves
        for _ in range(3):
            grads = torch.autograd.grad(written.loss(weights, *task[:2]), list(weights.values()), create_graph=True)
            weights = {n: w - LR * g for (n, w), g in zip(weights.items(), grads, strict=True)}
        expected = torch.autograd.grad(written.loss(weights, *task[2:]), list(leaves.values()))
        for got, wanted in zip(stepwise_of(model, task), expected, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)


def stepwise_of(model: nn.Module, task: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return meta_gradient(MAML(model, LR, second_order="stepwise"), task)


def test_agrees_on_a_conv4_with_compiled_kernels(sampler):
    model = sm.models.Conv4(ways=3, in_channels=1, hidden=6, image_size=16).double()
    tasks = sampler(size=16, dtype=torch.float64).sample(1)
    task = tuple(f[0] for f in (tasks.support_x, tasks.support_y, tasks.query_x, tasks.query_y))
    for each in (model, sm.sparsify(model, sm.Ticket.magnitude(model, 0.7))):
        for unrolled, stepwise in zip(*both(each, task), strict=True):
            torch.testing.assert_close(stepwise, unrolled, rtol=1e-10, atol=1e-12)


def kept_bytes(learner: MAML, task: tuple[Tensor, ...], steps: int) -> int:
    """Bytes of what autograd keeps until backward, each piece of memory once, without parameters and images."""
    alive: weakref.WeakValueDictionary = weakref.WeakValueDictionary()
    given = {t.untyped_storage().data_ptr() for t in (*task, *learner.parameters())}

    class Packed:
        def __init__(self, tensor: Tensor):
            self.tensor = tensor
            alive[id(self)] = self

    with saved_tensors_hooks(Packed, lambda packed: packed.tensor):
        loss = F.cross_entropy(adapted(learner, *task[:2], steps)(task[2]), task[3])
    storages = {p.tensor.untyped_storage().data_ptr(): p.tensor.untyped_storage().nbytes() for p in alive.values()}
    assert loss.requires_grad
    return sum(size for place, size in storages.items() if place not in given)


def test_memory_does_not_grow_with_the_steps(written, task):
    weights = sum(p.numel() * p.element_size() for p in written.model.parameters())
    few, many = (kept_bytes(MAML(written.model, LR, second_order="stepwise"), task, steps) for steps in (1, 9))
    assert many - few == 8 * weights  # the weights before each step, no activation
    unrolled = [kept_bytes(MAML(written.model, LR), task, steps) for steps in (1, 9)]
    assert unrolled[1] - unrolled[0] > 10 * (many - few)


def test_random_numbers_are_drawn_again_and_autocast_is_restored(net, task):
    model = net(dropout=0.5).double()
    results = []
    for order in ("unrolled", "stepwise"):
        torch.manual_seed(0)
        results.append(meta_gradient(MAML(model, LR, second_order=order), task))
        state = torch.get_rng_state()
    for unrolled, stepwise in zip(*results, strict=True):
        torch.testing.assert_close(stepwise, unrolled, rtol=1e-10, atol=1e-12)
    assert torch.equal(state, torch.get_rng_state())

    model, task, results = net(), tuple(t.float() if t.is_floating_point() else t for t in task), []
    for order in ("unrolled", "stepwise"):
        learner = MAML(model, LR, second_order=order)
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(adapted(learner, *task[:2], 2)(task[2]), task[3])
        results.append(torch.autograd.grad(loss, list(model.parameters())))
    for unrolled, stepwise in zip(*results, strict=True):
        torch.testing.assert_close(stepwise, unrolled, rtol=1e-5, atol=1e-6)


def test_learned_rates_and_unused_parameters(written, task):
    written.model.register_parameter("spare", nn.Parameter(torch.ones(2, dtype=torch.float64)))
    gradients = []
    for order in ("unrolled", "stepwise"):
        rate = nn.Parameter(torch.tensor(LR, dtype=torch.float64))
        learner = MAML(written.model, rate, second_order=order, allow_unused=True)
        clone = adapted(learner, *task[:2], 3)
        torch.testing.assert_close(clone.weights["spare"], written.model.spare)
        F.cross_entropy(clone(task[2]), task[3]).backward()
        gradients.append(rate.grad)
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)
    with pytest.raises(RuntimeError, match="does not on .'spare'"):
        adapted(MAML(written.model, LR, second_order="stepwise"), *task[:2], 1)


def test_a_failed_step_leaves_the_clone_and_misuse_is_named(net, task):
    learner = MAML(net().double(), LR, second_order="stepwise")
    clone = learner.clone()
    before = clone.weights
    with pytest.raises(TypeError, match="expected a function of the clone.*clone.adapt\\(lambda clone"):
        clone.adapt(F.cross_entropy(clone(task[0]), task[1]))
    with pytest.raises(ValueError, match="Expected input batch_size"):
        clone.adapt(lambda clone: F.cross_entropy(clone(task[0]), task[1][:2]))
    assert clone.weights is before and clone.step == 0
    clone.adapt(F.cross_entropy(clone(task[0]), task[1]), first_order=True)
    with pytest.raises(ValueError, match="one of 'unrolled', 'stepwise'; got 'exact'"):
        MAML(net(), second_order="exact")


def test_a_third_derivative_is_refused(net, task):
    learner = MAML(net().double(), LR, second_order="stepwise")
    loss = F.cross_entropy(adapted(learner, *task[:2], 1)(task[2]), task[3])
    grad = torch.autograd.grad(loss, list(learner.parameters()), create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()
