"""What a Lambda pattern skips is not computed: kernel calls, counted."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import sparsemeta as sm
from sparsemeta.backends import cpu
from sparsemeta.meta import MAML
from sparsemeta.meta.lambda_adapt import LambdaAdaptation
from sparsemeta.meta.lambda_pattern import LambdaPattern

STEPS, LAYERS = 3, 5
SPARSE = {"masked_conv2d": "forward", "masked_conv2d_input_grad": "input", "masked_conv2d_weight_grad": "weight"}


def expected(pattern: str, cache: bool, layers: int) -> Counter:
    """Forward in every step, or once in an unmoved prefix; gradients of weights that move and of inputs above."""
    rows = LambdaPattern(pattern).rows
    counts, kept, unmoved = Counter(), set(), LAYERS
    for row in rows if len(rows) > 1 else rows * STEPS:
        first = row.index("1")
        for layer in range(layers):
            counts["forward"] += layer >= first or layer not in kept
            counts["input"] += layer > first
            counts["weight"] += row[layer] == "1"
        unmoved = min(unmoved, first)
        kept = {layer for layer in range(LAYERS) if cache and layer < unmoved and (layer in kept or layer < first)}
    return +counts


@pytest.fixture
def task():
    return torch.randn(3, 1, 16, 16), torch.arange(3)


def model() -> sm.models.Conv4:
    return sm.models.Conv4(ways=3, in_channels=1, hidden=4, image_size=16)


PATTERNS = ["11111", "01111", "00111", "00001", "11110", "10001", "01010", "00001/00100/10000", "00111/10000/00010"]


@pytest.mark.extension
@pytest.mark.parametrize("first_order", [True, False])
@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_sparse(pattern, cache, first_order, task, monkeypatch):
    dense = model()
    learner = MAML(sm.sparsify(dense, sm.Ticket.magnitude(dense, 0.5, scope="layer")), first_order=first_order)
    counts = Counter()

    def counted(name, kernel):
        def run(*args):
            counts[SPARSE[name]] += 1
            return kernel(*args)

        return run

    for name in SPARSE:
        monkeypatch.setattr(cpu, name, counted(name, getattr(cpu, name)))
    LambdaAdaptation(learner, LambdaPattern(pattern), prefix_cache=cache)(*task, STEPS)
    assert counts == expected(pattern, cache, LAYERS)


class Convolutions(TorchDispatchMode):
    """Counts PyTorch's convolutions, and which gradients are asked of them."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution.default:
            self.counts["forward"] += 1
        if func is torch.ops.aten.convolution_backward.default:
            to_input, to_weight, _ = args[-1]
            self.counts["input"] += to_input
            self.counts["weight"] += to_weight
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("first_order", [True, False])
@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_dense(pattern, cache, first_order, task):
    adaptation = LambdaAdaptation(MAML(model(), first_order=first_order), LambdaPattern(pattern), prefix_cache=cache)
    with Convolutions() as counted:
        adaptation(*task, STEPS)
    assert +counted.counts == expected(pattern, cache, LAYERS - 1)


@pytest.mark.parametrize("cache, passes", [(True, 1), (False, STEPS)])
def test_the_last_layer_runs_by_itself(cache, passes, task):
    learner, calls = MAML(model()), []
    learner.module.register_forward_hook(lambda *_: calls.append(1))
    LambdaAdaptation(learner, LambdaPattern("00001"), prefix_cache=cache)(*task, STEPS)
    assert len(calls) == passes


def test_a_prefix_of_a_first_order_learner_has_no_graph(task):
    for first_order in (True, False):
        learner = MAML(model(), first_order=first_order)
        seen = []
        learner.module.features[2].register_forward_hook(lambda module, args, y: seen.append(y.requires_grad))  # noqa: B023  used in this round
        LambdaAdaptation(learner, LambdaPattern("00011"))(*task, STEPS)
        assert set(seen) == {not first_order}


def test_the_exact_meta_gradient_leads_through_the_prefix(task):
    learner = MAML(model())
    clone = LambdaAdaptation(learner, LambdaPattern("00001"))(*task, STEPS)
    through = torch.autograd.grad(clone.weights["head.weight"].square().sum(), learner.module.features[0].conv.weight)
    assert through[0].abs().max() > 0
