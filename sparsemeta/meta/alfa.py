"""ALFA: rates and decays that a network generates from weights and gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .maml import MAML
from .parameters import PerParameter


class ALFA(MAML):
    """Adaptive learning of hyperparameters for fast adaptation (Baik et al. 2020, arXiv 2011.00209).

    In step k the layer l takes ``theta <- (1 - g_b b[l, k]) theta - g_a a[l, k] gradient``, where a network of two
    linear layers generates all g from the means of weights and of gradients of every layer, and ``a`` and ``b`` are
    learned (the form of the authors' published code). A layer is one parameter tensor. In a sparse
    layer the means are over the weights that it keeps. Generated factors start near 1: there the network's last bias is
    1, so that training begins near MAML.

    Args:
        model, options: as for ``MAML``.
        lr: where ``a`` starts.
        steps: inner steps with ``a`` and ``b`` of their own; further ones take those of the last.
        weight_decay: ``b`` starts at ``lr * weight_decay``.

    Attributes:
        lr, decay: ``a`` and ``b``, by parameter name, each ``[steps]``.
        generator: ``[2 L]`` means, weights first, to ``[2 L]`` factors, those of rates first.
    """

    def __init__(
        self, model: nn.Module, lr: float = 0.01, steps: int = 5, weight_decay: float = 5e-4, **options: Any
    ):
        super().__init__(model, lr, steps=steps, **options)
        start = self.start()
        self.learn_rates({name: p.new_full([steps], lr) for name, p in start.items()})
        decays = {name: nn.Parameter(p.new_full([steps], lr * weight_decay)) for name, p in start.items()}
        self.decay, width, like = PerParameter(decays), 2 * len(start), next(iter(start.values()))
        self.generator = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)).to(like)
        nn.init.ones_(self.generator[2].bias)

    def updated(self, weights: Mapping[str, Tensor], grads: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``weights`` of one task after one inner step along ``grads``."""
        rates, decays = self.factors(weights, grads)
        new = {}
        for name, w in weights.items():
            k = min(self.step, len(self.lr[name]) - 1)
            kept = 1 - decays[name] * self.decay[name][k]
            new[name] = kept * w - rates[name] * self.lr[name][k] * grads[name]
        return new

    def factors(self, weights: Mapping[str, Tensor], grads: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """The generated factors of rates and of decays; what has no gradient counts with means of 0."""
        names, nothing = list(self.start()), next(iter(weights.values())).new_zeros(1)
        groups = [[group.get(name, nothing) for name in names] for group in (weights, grads)]
        means = torch.stack([t.sum() / max(t.numel(), 1) for group in groups for t in group])
        return [dict(zip(names, half.unbind(), strict=True)) for half in self.generator(means).chunk(2)]
