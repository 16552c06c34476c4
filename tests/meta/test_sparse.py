"""Meta-learning on sparse models: the same numbers as on their dense definition."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

import sparsemeta as sm
from sparsemeta.meta import MAML, CheckpointError, TrainConfig, evaluate, train

LR = 0.3


def ticketed() -> tuple[nn.Module, sm.Ticket]:
    torch.manual_seed(3)
    model = sm.models.Conv4(ways=3, in_channels=1, hidden=6, image_size=16)
    return model, sm.Ticket.magnitude(model, sparsity=0.7)


def dense_meta_gradient(model: nn.Module, ticket: sm.Ticket, x, y, query_x, query_y) -> dict[str, torch.Tensor]:
    """Through three steps on the kept values, each expanded to a dense weight."""
    start = {name: p.detach() for name, p in model.named_parameters()}
    start |= {name: pattern.compress(start[name]) for name, pattern in ticket.patterns.items()}
    start = {name: p.clone().requires_grad_() for name, p in start.items()}

    def loss(weights, images, labels):
        dense = weights | {name: pattern.expand(weights[name]) for name, pattern in ticket.patterns.items()}
        return F.cross_entropy(functional_call(model, dense, (images,)), labels)

    weights = start
    for _ in range(3):
        grads = torch.autograd.grad(loss(weights, x, y), list(weights.values()), create_graph=True)
        weights = {name: p - LR * g for (name, p), g in zip(weights.items(), grads, strict=True)}
    grads = torch.autograd.grad(loss(weights, query_x, query_y), list(start.values()))
    return {
        name[: -len("weight")] + "values" if name in ticket.patterns else name: g
        for name, g in zip(start, grads, strict=True)
    }


@pytest.mark.parametrize("backend", ["dense", "cpu"])
def test_meta_gradient_equals_the_dense_one(backend, sampler):
    model, ticket = ticketed()
    tasks = sampler(size=16, dtype=torch.float64).sample(1)
    task = [f[0] for f in (tasks.support_x, tasks.support_y, tasks.query_x, tasks.query_y)]
    expected = dense_meta_gradient(model.double(), ticket, *task)

    learner = MAML(sm.sparsify(model, ticket, backend=backend), lr=LR)
    clone = learner.clone()
    for _ in range(3):
        clone.adapt(F.cross_entropy(clone(task[0]), task[1]))
    F.cross_entropy(clone(task[2]), task[3]).backward()
    for name, p in learner.module.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], rtol=1e-10, atol=1e-10)


def test_a_ticket_trains_and_resumes_with_its_pattern(sampler, settings, tmp_path):
    model, ticket = ticketed()
    config, file = TrainConfig(**settings, steps=3), tmp_path / "c"
    sparse = [sm.sparsify(model, ticket) for _ in range(2)]
    train(sparse[0], sampler(size=16), TrainConfig(**settings, steps=2), file, progress=False)
    whole = train(sparse[1], sampler(size=16), config, progress=False)
    resumed = train(sm.sparsify(model, ticket), sampler(size=16), config, file, resume=True, progress=False)
    assert [r.loss for r in resumed.history] == [r.loss for r in whole.history]
    assert sm.ticket_of(sparse[1]).patterns == ticket.patterns
    assert evaluate(sparse[1], sampler(1, size=16), config, tasks=4).tasks == 4

    mask = {name: pattern.mask().flatten().roll(1).view(pattern.shape) for name, pattern in ticket.patterns.items()}
    with pytest.raises(CheckpointError, match="the models differ in .*pattern_bits"):
        shifted = sm.sparsify(model, sm.Ticket.from_masks(mask))
        train(shifted, sampler(size=16), config, file, resume=True, progress=False)
