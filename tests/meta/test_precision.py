"""bf16: the forward pass is rounded, everything that is kept is not, and training learns."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sparsemeta as sm
from sparsemeta.meta import TrainConfig, evaluate, make_learner, make_optimizer, meta_step, train
from sparsemeta.meta.precision import forward_in


def seen_types(model: nn.Module) -> list[torch.dtype]:
    """Fills with the type of each output of the linear layers."""
    seen = []
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda _, __, y: seen.append(y.dtype))
    return seen


def test_forward_is_bf16_and_weights_inner_updates_and_moments_are_float32(net, sampler, settings):
    model, config = net(), TrainConfig(**settings, precision="bf16")
    seen, learner = seen_types(model), make_learner(model, config)
    tasks = sampler().sample(2)
    optimizer = make_optimizer(learner, config)
    with forward_in(model, "bf16"):
        clone = learner.clone()
        logits = clone(tasks.support_x[0])
        clone.adapt(F.cross_entropy(logits, tasks.support_y[0]))
        meta_step(learner, tasks, optimizer, config)
    assert set(seen) == {torch.bfloat16} and logits.dtype == torch.float32
    kept = [*clone.weights.values(), *model.parameters(), *(p.grad for p in model.parameters())]
    kept += [m for state in optimizer.state.values() for m in state.values()]
    assert {tensor.dtype for tensor in kept} == {torch.float32}
    rounded = [torch.equal(w, w.bfloat16().float()) for w in clone.weights.values()]
    assert not any(rounded)  # float32 in more than name


def test_the_meta_gradient_is_that_of_float32_but_for_rounding(net, sampler, settings):
    def gradient(precision: str) -> torch.Tensor:
        model, config = net(), TrainConfig(**settings, precision=precision)
        learner, optimizer = make_learner(model, config), torch.optim.SGD(model.parameters(), 0.1)
        with forward_in(model, precision):
            meta_step(learner, sampler().sample(4), optimizer, config)
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    exact, rounded = gradient("float32"), gradient("bf16")
    assert 1e-5 < (rounded - exact).norm() / exact.norm() < 0.05  # bfloat16 keeps 8 bits


def test_the_model_is_as_before_afterwards(net, sampler, settings):
    model = net()
    train(model, sampler(), TrainConfig(**settings, steps=1, precision="bf16"), progress=False)
    seen = seen_types(model)
    model(torch.randn(2, 1, 8, 8))
    assert seen == [torch.float32] and "forward" not in vars(model)


@pytest.mark.parametrize("sparse", [False, True])
def test_a_short_run_learns(net, sampler, settings, sparse):
    config = TrainConfig(**settings, steps=60, meta_lr=1e-2, precision="bf16")
    model = net()
    model = sm.sparsify(model, sm.Ticket.magnitude(model, 0.3, exclude=("5",))) if sparse else model
    before = evaluate(model, sampler(1, noise=2.0), config, tasks=50)
    train(model, sampler(noise=2.0), config, progress=False)
    after = evaluate(model, sampler(1, noise=2.0), config, tasks=50)
    assert after.accuracy > before.accuracy + 5 and all(p.dtype == torch.float32 for p in model.parameters())
