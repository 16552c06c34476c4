"""evaluate: the interval, and that it leaves everything as it was."""

from __future__ import annotations

import math
import statistics
from types import SimpleNamespace

import pytest
import torch

from sparsemeta.meta import MAML, TrainConfig, evaluate, make_learner, meta_step, train
from sparsemeta.meta.meta_step import adapted


def test_accuracy_and_interval_are_those_of_the_single_tasks(net, sampler, settings):
    model, config = net(), TrainConfig(**settings, eval_inner_steps=3)
    result = evaluate(model, sampler(noise=2.0), config, tasks=7)
    learner, drawn = MAML(model, lr=config.inner_lr), sampler(noise=2.0).sample(7)
    accuracies = []
    for i in range(7):
        logits = adapted(learner, drawn.support_x[i], drawn.support_y[i], 3)(drawn.query_x[i])
        accuracies.append(100 * (logits.argmax(1) == drawn.query_y[i]).float().mean().item())
    assert len(set(accuracies)) > 2
    assert result.accuracy == pytest.approx(statistics.mean(accuracies))
    assert result.interval == pytest.approx(1.96 * statistics.stdev(accuracies) / math.sqrt(7))
    assert result.tasks == 7 and "transductive" in str(result)
    assert result.accuracies == pytest.approx(accuracies)


def test_two_models_differ_task_by_task(net, sampler, settings):
    model, config = net(), TrainConfig(**settings)
    with torch.no_grad():
        other = evaluate(model, sampler(noise=2.0), config, tasks=6)
        model[0].weight.mul_(-1)
    result = evaluate(model, sampler(noise=2.0), config, tasks=6)
    pairs = [a - b for a, b in zip(result.accuracies, other.accuracies, strict=True)]
    assert len(set(pairs)) > 1
    wanted = statistics.mean(pairs), 1.96 * statistics.stdev(pairs) / math.sqrt(6)
    assert result.minus(other) == pytest.approx(wanted) and result.minus(result) == (0, 0)
    with pytest.raises(ValueError, match="the same 6 tasks, got one on 5"):
        result.minus(evaluate(model, sampler(), config, tasks=5))


@pytest.mark.parametrize("training", [True, False])
def test_nothing_changes_and_the_same_tasks_come_again(net, sampler, settings, training):
    model = net(track_running_stats=True, dropout=0.5).train(training)
    model[3].train(not training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tasks, config = sampler(), TrainConfig(**settings)
    modes, place, random = [m.training for m in model.modules()], tasks.state_dict(), torch.get_rng_state()
    with torch.no_grad():
        first = evaluate(model, tasks, config, tasks=5)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(tasks.state_dict()["generator"], place["generator"])
    assert torch.equal(torch.get_rng_state(), random)
    assert evaluate(model, tasks, config, tasks=5) == first


def test_dropout_is_off(net, sampler, settings):
    results = [evaluate(net(dropout=p), sampler(), TrainConfig(**settings), tasks=4) for p in (0.0, 0.5)]
    assert results[0] == results[1]


def test_with_a_pattern_only_its_layers_adapt(net, sampler, settings):
    model, config = net(), TrainConfig(**settings, eval_inner_steps=3)
    held = {name: 0.0 if name.startswith(("0.", "1.")) else config.inner_lr for name, _ in model.named_parameters()}
    expected = evaluate(MAML(model, lr=held), sampler(noise=2.0), config, tasks=4)
    result = evaluate(model, sampler(noise=2.0), config, tasks=4, pattern="01")
    assert result.loss == pytest.approx(expected.loss) and result.accuracy == expected.accuracy
    assert result.loss != evaluate(model, sampler(noise=2.0), config, tasks=4).loss
    with pytest.raises(ValueError, match="pattern of 2 bits"):
        evaluate(model, sampler(), config, tasks=4, pattern="001")


def test_too_few_tasks(net, sampler, settings):
    with pytest.raises(ValueError, match="at least 2 tasks, for an interval; got 1"):
        evaluate(net(), sampler(), TrainConfig(**settings), tasks=1)


def test_tasks_of_another_shape(net, sampler, settings):
    with pytest.raises(ValueError, match=r"expected tasks of 3 support .* got 6 and 12"):
        evaluate(net(), sampler(), TrainConfig(**{**settings, "shots": 1}), tasks=4)


LEARNING = [{"algorithm": "meta_sgd"}, {"algorithm": "maml++"}, {"algorithm": "alfa"}, {"bn_mode": "per_step"}]


@pytest.mark.parametrize("more", LEARNING, ids=str)
def test_what_is_learned_beside_the_model_is_asked_for(net, sampler, settings, more):
    model, config = net(), TrainConfig(**{**settings, **more, "steps": 2, "meta_lr": 0.1})
    learner = train(model, sampler(), config, progress=False).learner
    with pytest.raises(ValueError, match=r"expected the learner, .* also learns .*; got the model alone"):
        evaluate(model, sampler(), config, tasks=2)
    fresh = evaluate(make_learner(model, config), sampler(noise=2.0), config, tasks=4)
    assert evaluate(learner, sampler(noise=2.0), config, tasks=4).loss != fresh.loss


def test_a_share_without_tasks_is_named(net, sampler, settings):
    config = TrainConfig(**settings)
    learner = make_learner(net(), config)
    none = SimpleNamespace(**{name: field[:0] for name, field in vars(sampler().sample(1)).items()})
    with pytest.raises(ValueError, match="expected at least one task; got none"):
        meta_step(learner, none, torch.optim.SGD(learner.parameters(), lr=0.1), config)
