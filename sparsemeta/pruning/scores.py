"""Scores: how much each weight matters, higher = keep. A new score is a function of a few lines under `@score`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .probe import Probe
from .weights import is_masked, parameter_of, prunable_layers, scattered, working_copy

Weights = Mapping[str, nn.Parameter]
Score = Callable[..., dict[str, Tensor]]
SCORES: dict[str, Score] = {}


def score(
    name: str, needs_probe: bool = False, copies: bool = True
) -> Callable[[Callable[..., Mapping[str, Tensor]]], Score]:
    """Register a score under `name`.

    What is decorated takes `(model, weights, probe, **options)`: a copy of the model that it may change (the model
    itself with `copies=False`, for a score that only reads weights), the trained tensor of each weight by name (the
    weight, or the kept `values` of a sparse layer), and the probe. It returns a score of the same shape for each. What
    is registered takes `(model, probe=None, exclude=(), **options)`, leaves the model as it is, and returns float64
    scores of the weights' shapes on the CPU, -inf where pruned already.
    """

    def register(function: Callable[..., Mapping[str, Tensor]]) -> Score:
        @functools.wraps(function)
        def scored(
            model: nn.Module, probe: Probe | None = None, exclude: Sequence[str] = (), **options: Any
        ) -> dict[str, Tensor]:
            if needs_probe and probe is None:
                raise ValueError(f"expected a probe for the score {name!r}; use Probe.supervised or Probe.meta")
            layers = prunable_layers(model := working_copy(model) if copies or is_masked(model) else model, exclude)
            found = function(model, {n: parameter_of(layer) for n, layer in layers.items()}, probe, **options)
            if broken := [n for n, values in found.items() if not values.isfinite().all()]:
                raise ValueError(f"expected finite {name} scores, got others in {broken}; check model and loss")
            return {n: scattered(layer, found[n]) for n, layer in layers.items()}

        SCORES[name] = scored
        return scored

    return register


@score("magnitude", copies=False)
def magnitude(model: nn.Module, weights: Weights, probe: Probe | None) -> dict[str, Tensor]:
    """|w| (Han et al. 2015, arXiv 1506.02626)."""
    return {name: weight.abs() for name, weight in weights.items()}


@score("random", copies=False)
def random(model: nn.Module, weights: Weights, probe: Probe | None, seed: int = 0) -> dict[str, Tensor]:
    """Uniform in [0, 1), from `seed`: the control that any other score has to beat."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(weight.shape, generator=generator) for name, weight in weights.items()}


@score("snip", needs_probe=True)
def snip(model: nn.Module, weights: Weights, probe: Probe) -> dict[str, Tensor]:
    """|w dL/dw|: how much the mean loss reacts to the weight (SNIP, Lee et al. 2019, arXiv 1810.02340)."""
    total = _mean(gradients(loss(model), weights) for loss in probe.losses)
    return {name: (weight * total[name]).abs() for name, weight in weights.items()}


@score("taylor", needs_probe=True)
def taylor(model: nn.Module, weights: Weights, probe: Probe) -> dict[str, Tensor]:
    """(w dL/dw)^2, its mean over the batches (Molchanov et al. 2019, arXiv 1906.10771)."""
    per_batch = (gradients(loss(model), weights) for loss in probe.losses)
    return _mean({name: (weight * grads[name]).square() for name, weight in weights.items()} for grads in per_batch)


@score("grasp", needs_probe=True)
def grasp(model: nn.Module, weights: Weights, probe: Probe) -> dict[str, Tensor]:
    """w (Hg): half of what the weight adds to the gradient flow |g|^2 of the mean loss, to first order.

    GraSP (Wang et al. 2020, arXiv 2002.07376); theirs is the negative, of which they prune the highest. g is the
    gradient of the covered weights.
    """
    total = _mean(gradients(loss(model), weights) for loss in probe.losses)
    flows = (_along(gradients(loss(model), weights, create_graph=True), total) for loss in probe.losses)
    product = _mean(gradients(flow, weights) for flow in flows)
    return {name: weight * product[name] for name, weight in weights.items()}


def gradients(loss: Tensor, weights: Weights, create_graph: bool = False) -> dict[str, Tensor]:
    """Gradient of a scalar for each weight; zeros where it does not depend on it."""
    grads = torch.autograd.grad(
        loss, list(weights.values()), create_graph=create_graph, allow_unused=True, materialize_grads=True
    )
    return dict(zip(weights, grads, strict=True))


def _along(grads: Mapping[str, Tensor], direction: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([(grads[name] * direction[name].detach()).sum() for name in grads]).sum()


def _mean(terms) -> dict[str, Tensor]:
    """Mean of dicts of tensors, one after another, so that one batch's graph is freed before the next begins."""
    total: dict[str, Tensor] = {}
    count = 0
    for term in terms:
        count += 1
        total = {name: value.detach() + total.get(name, 0) for name, value in term.items()}
    return {name: value / count for name, value in total.items()}
