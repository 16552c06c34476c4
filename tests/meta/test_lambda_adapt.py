"""Adaptation under a Lambda pattern: the numbers of MAML with rates of 0 in the layers that hold still."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sparsemeta as sm
from sparsemeta.meta import ANIL, CAVIA, MAML, MAMLPlusPlus
from sparsemeta.meta.lambda_adapt import LambdaAdaptation
from sparsemeta.meta.lambda_layers import pattern_layers
from sparsemeta.meta.lambda_pattern import LambdaPattern
from sparsemeta.meta.meta_step import adapted

LR, STEPS = 0.3, 3
PATTERNS = ["111", "011", "001", "110", "101", "010", "100", "001/011/100", "011/000/111", "100/001/010"]
EXACT = {"rtol": 1e-9, "atol": 1e-10}


def flat() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(24, 3)),
    ).double()


def nested() -> nn.Sequential:
    layers = list(flat())
    return nn.Sequential(nn.Sequential(nn.Sequential(*layers[:4]), nn.Sequential(*layers[4:8])), *layers[8:])


def residual() -> nn.Module:
    torch.manual_seed(3)
    return sm.models.ResNet12(ways=3, in_channels=1, widths=(4, 6), image_size=8).double()


def sparse() -> nn.Module:
    model = flat()
    return sm.sparsify(model, sm.Ticket.magnitude(model, sparsity=0.6, scope="layer"))


def sparse_nested() -> nn.Module:
    model = nested()
    return sm.sparsify(model, sm.Ticket.magnitude(model, sparsity=0.6, scope="layer"))


MODELS = [flat, nested, residual, sparse, sparse_nested]


def rates(model: nn.Module, pattern: str) -> list[dict[str, float]]:
    """Of each step and parameter: 0 in the layers whose bit is 0."""
    layers, rows = pattern_layers(model), LambdaPattern(pattern).rows
    rows = rows if len(rows) > 1 else rows * STEPS
    return [
        {name: LR * int(bit) for layer, bit in zip(layers, row, strict=True) for name in layer.parameters}
        for row in rows
    ]


def by_rates(learner: MAML, pattern: str, x, y) -> MAML:
    clone = learner.clone()
    for lr in rates(learner.module, pattern):
        clone.lr = lr
        clone.adapt(F.cross_entropy(clone(x), y))
    return clone


def meta_gradient(clone: MAML, learner: MAML, task) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(F.cross_entropy(clone(task[2]), task[3]), list(learner.parameters()))


@pytest.mark.parametrize("first_order", [True, False])
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("make", MODELS)
def test_values_and_meta_gradient_are_those_of_zero_rates(make, pattern, first_order, task):
    learner = MAML(make(), lr=LR, first_order=first_order)
    expected = by_rates(learner, pattern, *task[:2])
    gradient = meta_gradient(expected, learner, task)
    for cache in (True, False):
        clone = LambdaAdaptation(learner, LambdaPattern(pattern), prefix_cache=cache)(*task[:2], STEPS)
        assert clone.weights.keys() == expected.weights.keys()
        for name, weight in clone.weights.items():
            torch.testing.assert_close(weight, expected.weights[name], **EXACT)
        for got, wanted in zip(meta_gradient(clone, learner, task), gradient, strict=True):
            torch.testing.assert_close(got, wanted, **EXACT)


@pytest.mark.parametrize("mode", ["inductive", "frozen"])
def test_other_batch_norms(mode, task):
    learner = MAML(flat(), lr=LR, bn_mode=mode)
    gradient = meta_gradient(by_rates(learner, "011", *task[:2]), learner, task)
    clone = LambdaAdaptation(learner, LambdaPattern("011"))(*task[:2], STEPS)
    for got, wanted in zip(meta_gradient(clone, learner, task), gradient, strict=True):
        torch.testing.assert_close(got, wanted, **EXACT)


def test_all_ones_is_maml(task):
    learner = MAML(nested(), lr=LR)
    clone = LambdaAdaptation(learner, LambdaPattern("111"))(*task[:2], STEPS)
    expected = meta_gradient(adapted(learner, *task[:2], STEPS), learner, task)
    assert all(torch.equal(a, b) for a, b in zip(meta_gradient(clone, learner, task), expected, strict=True))


def test_rates_may_be_learned(task):
    model = flat()
    lr = {name: nn.Parameter(torch.full((), LR).double()) for name, _ in model.named_parameters()}
    learner = MAML(model, lr=lr)
    clone = LambdaAdaptation(learner, LambdaPattern("001"))(*task[:2], STEPS)
    F.cross_entropy(clone(task[2]), task[3]).backward()
    assert {name for name, rate in lr.items() if rate.grad is not None} == {"9.weight", "9.bias"}


def test_an_exact_meta_gradient_is_unrolled(task):
    gradients = []
    for way in ("unrolled", "stepwise"):
        learner = MAML(flat(), lr=LR, second_order=way)
        clone = LambdaAdaptation(learner, LambdaPattern("011"))(*task[:2], STEPS)
        gradients.append(meta_gradient(clone, learner, task))
        assert learner.second_order == way
    assert all(map(torch.equal, *gradients))


def test_layers_that_the_learner_holds_still_stay(task):
    learner = ANIL(flat(), lr=LR)
    expected = adapted(learner, *task[:2], STEPS).weights
    for pattern, moves in (("111", True), ("001", True), ("110", False)):
        weights = LambdaAdaptation(learner, LambdaPattern(pattern))(*task[:2], STEPS).weights
        for name, weight in learner.start().items():
            torch.testing.assert_close(weights[name], expected[name] if moves else weight, **EXACT)


def test_a_step_in_which_nothing_moves_counts(task):
    learner = MAMLPlusPlus(flat(), lr=LR, steps=2)
    with torch.no_grad():
        for rate in learner.lr.values():
            rate[0] = 0.0
    clone = LambdaAdaptation(learner, LambdaPattern("000/111"))(*task[:2], 2)
    assert clone.step == 2 and not torch.equal(clone.weights["9.weight"], learner.module[9].weight)


def test_a_learner_that_moves_no_layer(task):
    with pytest.raises(ValueError, match="expected a learner that moves parameters of its model"):
        LambdaAdaptation(CAVIA(sm.models.FiLMConv4(3, 1, 4, 16)), LambdaPattern("111111"))


def test_nothing_is_left_on_the_model(task):
    model = nested()
    before = {name: vars(m).copy() for name, m in model.named_modules()}
    LambdaAdaptation(MAML(model, lr=LR), LambdaPattern("001"))(*task[:2], STEPS)
    assert {name: vars(m) for name, m in model.named_modules()} == before


def test_active_dropout_is_drawn_anew_in_each_step(task):
    def outcome(training: bool, cache: bool):
        model = nn.Sequential(nn.Dropout(0.5), *nested()).train(training)
        adaptation = LambdaAdaptation(MAML(model, lr=LR), LambdaPattern("001"), prefix_cache=cache)
        torch.manual_seed(1)
        return adaptation(*task[:2], STEPS).weights["3.weight"]

    assert torch.equal(outcome(True, True), outcome(True, False))
    assert not torch.equal(outcome(True, True), outcome(False, True))


class HeadFirst(nn.Module):
    """Its first child runs last."""

    def __init__(self):
        super().__init__()
        self.head, self.body = nn.Linear(4, 3), nn.Conv2d(1, 4, 3)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


class Twice(nn.Module):
    """Its first child runs twice."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(1, 1, 3, padding=1), nn.Linear(64, 3)

    def forward(self, x):
        return self.head(self.body(self.body(x)).flatten(1))


class HeadTwice(nn.Module):
    """What its head is given is its own."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(1, 3, 3), nn.Linear(3, 3)

    def forward(self, x):
        return self.head(self.head(self.body(x).mean((2, 3))))


def test_a_head_that_runs_twice(task):
    learner = MAML(HeadTwice().double(), lr=LR)
    expected = by_rates(learner, "01", *task[:2]).weights
    weights = LambdaAdaptation(learner, LambdaPattern("01"))(*task[:2], STEPS).weights
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[name], **EXACT)


@pytest.mark.parametrize("make", [HeadFirst, Twice])
def test_layers_out_of_order_are_refused(make, task):
    model = make().double()
    with pytest.raises(RuntimeError, match="one after another, each once.*prefix_cache=False"):
        LambdaAdaptation(MAML(model), LambdaPattern("01"))(*task[:2], STEPS)
    LambdaAdaptation(MAML(model), LambdaPattern("01"), prefix_cache=False)(*task[:2], STEPS)
    rule = [["body"], ["head"]]
    if make is HeadFirst:
        LambdaAdaptation(MAML(model), LambdaPattern("01"), layers=lambda _: rule)(*task[:2], STEPS)


def test_patterns_that_do_not_fit(task):
    learner = MAML(flat())
    with pytest.raises(ValueError, match="pattern of 3 bits.*got 11 with 2"):
        LambdaAdaptation(learner, LambdaPattern("11"))
    with pytest.raises(ValueError, match="one for each of 3 inner steps; got 111/111"):
        LambdaAdaptation(learner, LambdaPattern("111/111"))(*task[:2], STEPS)
