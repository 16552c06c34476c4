"""Tasks side by side against the same tasks one after the other."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sparsemeta as sm
from sparsemeta import backends
from sparsemeta.meta import ALFA, ANIL, CAVIA, MAML, MAMLPlusPlus, MetaSGD, adapt_tasks, forward_tasks
from sparsemeta.meta.meta_step import adapted

LR, TASKS = 0.3, 3
CLOSE = {"rtol": 1e-10, "atol": 1e-11}


@pytest.fixture
def tasks(sampler):
    return sampler(size=16, dtype=torch.float64).sample(TASKS)


def make(kind: str, backend: str = "auto") -> nn.Module:
    torch.manual_seed(3)
    model = sm.models.FiLMConv4(ways=3, in_channels=1, hidden=6, image_size=16, context=4).double()
    if kind == "dense":
        return model
    return sm.sparsify(model, sm.Ticket.magnitude(model, 0.7, exclude=("features.2.film",)), backend)


def compare(learner: MAML, tasks, steps: int) -> None:
    """Weights, query logits and the meta-gradient."""
    weights = adapt_tasks(learner, tasks.support_x, tasks.support_y, steps)
    support = tasks.support_x if learner.bn_mode == "inductive" else None
    logits = forward_tasks(learner, weights, tasks.query_x, steps, support)
    parameters = [p for p in learner.parameters() if p.requires_grad]
    loss = F.cross_entropy(logits.flatten(0, 1), tasks.query_y.flatten())
    got = torch.autograd.grad(loss, parameters, allow_unused=True)

    one_by_one = []
    for i in range(TASKS):
        clone = adapted(learner, tasks.support_x[i], tasks.support_y[i], steps)
        assert clone.weights.keys() == weights.keys()
        for name, w in clone.weights.items():
            torch.testing.assert_close(weights[name][i], w, **CLOSE)
        one_by_one.append(clone(tasks.query_x[i]))
        torch.testing.assert_close(logits[i], one_by_one[i], **CLOSE)
    loss = F.cross_entropy(torch.cat(one_by_one), tasks.query_y.flatten())
    for a, b in zip(got, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, **CLOSE)


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("learner", [MAML, ANIL, MetaSGD, MAMLPlusPlus, ALFA, CAVIA])
def test_tasks_at_once_are_tasks_one_by_one(tasks, kind, learner):
    compare(learner(make(kind), LR), tasks, steps=2)


@pytest.mark.parametrize("options", [
    {"first_order": True}, {"second_order": "stepwise"}, {"bn_mode": "inductive"}, {"bn_mode": "per_step", "steps": 2},
])  # fmt: skip  one row
def test_orders_and_modes(tasks, options):
    compare(MAML(make("sparse"), LR, **options), tasks, steps=2)


@pytest.mark.extension
def test_one_kernel_runs_for_all_tasks(tasks, monkeypatch):
    model, calls = make("sparse", "cpu"), []
    kernel = backends.cpu.masked_conv2d

    def counted(x, values, *rest):
        calls.append(values.shape[:-1])
        return kernel(x, values, *rest)

    monkeypatch.setattr(backends.cpu, "masked_conv2d", counted)
    weights = adapt_tasks(model, tasks.support_x, tasks.support_y, 1, LR, first_order=True)
    calls.clear()
    forward_tasks(model, weights, tasks.query_x)
    assert calls == [(TASKS,)] * 5  # four convolutions and the head


def test_other_losses_and_targets(tasks):
    model = nn.Linear(4, 2).double()
    x, y = torch.randn(TASKS, 5, 4, dtype=torch.float64), torch.randn(TASKS, 5, 2, dtype=torch.float64)
    weights = adapt_tasks(model, x, y, 1, LR, F.mse_loss)
    for i in range(TASKS):
        grads = torch.autograd.grad(F.mse_loss(model(x[i]), y[i]), list(model.parameters()))
        for w, p, g in zip(weights.values(), model.parameters(), grads, strict=True):
            torch.testing.assert_close(w[i], p - LR * g, **CLOSE)


def test_misuse_is_named(tasks):
    model = make("dense")
    learner, x, y = MAML(model, LR, bn_mode="inductive"), tasks.support_x, tasks.support_y
    with pytest.raises(ValueError, match="expected lr for a model"):
        adapt_tasks(model, x, y)
    with pytest.raises(ValueError, match="its own lr and options; got 0.1"):
        adapt_tasks(learner, x, y, lr=0.1)
    with pytest.raises(ValueError, match=r"of the same T; got \(2, 6, 1, 16, 16\) and \(3, 6\)"):
        adapt_tasks(learner, x[:2], y)
    weights = adapt_tasks(learner, x, y)
    with pytest.raises(ValueError, match="expected support_x with bn_mode"):
        forward_tasks(learner, weights, tasks.query_x)
    with pytest.raises(ValueError, match=r"expected weights .* of 2 tasks"):
        forward_tasks(learner, weights, tasks.query_x[:2], support_x=x)
