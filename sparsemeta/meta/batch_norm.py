"""How batch norm finds its statistics while a model adapts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .per_step_norm import PerStepNorm

BN_MODES = ("transductive", "inductive", "frozen", "per_step")
BATCH = {"training": True, "track_running_stats": False}  # running statistics are neither read nor written
STORED = {"training": False, "track_running_stats": True}


class BatchNormMode:
    """Runs a model with its batch norms in one mode, and leaves modules and running statistics as they were.

    Modes (their accuracies compare only with themselves: Bronskill et al. 2020, arXiv 2003.03284):
        ``"transductive"``: the statistics of the batch at hand, in ``train()`` and ``eval()`` alike, as in MAML. The
            query images are normalised together, so the prediction for one depends on the others: do not judge queries
            one by one or sorted by class.
        ``"inductive"``: the query is normalised with the statistics of its support set under the adapted weights, so
            each query image stands alone. With 1 shot those statistics come from few images and are noisy; each query
            pass also runs the support set.
        ``"frozen"``: the stored running statistics. Nothing in meta-learning ever updates them: a model that was not
            pre-trained keeps mean 0 and variance 1, does not normalise at all and stays near chance.
        ``"per_step"``: transductive, with statistics and affine parameters of each inner step (``PerStepNorm``, as in
            MAML++). The affine parameters leave the inner loop.

    Args:
        model: the model whose ``nn.BatchNorm*d`` layers are run; one without any runs the same in every mode.
        mode: one of the above.
        steps: inner steps that ``"per_step"`` tells apart.

    Attributes:
        per_step: the sets of ``"per_step"``; None in other modes.
        replaced: names of the model's parameters that ``per_step`` stands for.

    Raises:
        ValueError: unknown mode; ``"frozen"`` for a layer without running statistics.
    """

    def __init__(self, model: nn.Module, mode: str, steps: int = 1):
        if mode not in BN_MODES:
            raise ValueError(f"expected bn_mode to be one of {', '.join(map(repr, BN_MODES))}; got {mode!r}")
        norms = {name: layer for name, layer in model.named_modules() if isinstance(layer, _BatchNorm)}
        self.mode, self.layers = mode, list(norms.values())
        self.tracking = [layer for layer in self.layers if layer.running_mean is not None]
        self.per_step = PerStepNorm(norms, steps) if mode == "per_step" else None
        own = [f"{name}." if name else "" for name in norms if self.per_step is not None]
        self.replaced = {prefix + key for prefix in own for key in ("weight", "bias")}
        if mode == "frozen" and len(self.tracking) < len(norms):
            bare = [name for name, layer in norms.items() if layer.running_mean is None]
            raise ValueError(
                f'expected running statistics for bn_mode="frozen"; got none in {bare}. '
                'Build the model with track_running_stats=True, or use bn_mode="transductive"'
            )

    def run(
        self, forward: Callable[[Tensor], Tensor], x: Tensor, support: Tensor | None = None, step: int = 0
    ) -> Tensor:
        """``forward(x)`` in this mode.

        Args:
            forward: ``[N, ...]`` to ``[N, ...]``, each row on its own but for batch norm.
            x: a batch.
            support: the support set of a query batch ``x``; None, or ``x`` itself, where ``x`` is the support set.
            step: inner steps taken so far.
        """
        if self.per_step is not None:
            sets = dict(zip(self.layers, self.per_step.children(), strict=True))
            with attributes_set(self.layers, lambda layer: BATCH | sets[layer].after(step)):
                return forward(x)
        if self.mode == "inductive" and support is not None and support is not x:
            rows = len(support)
            with attributes_set(self.layers, lambda layer: {"forward": partial(normalise_by_first, layer, rows)}):
                return forward(torch.cat([support, x]))[rows:]
        with attributes_set(self.tracking, lambda _: STORED if self.mode == "frozen" else BATCH):
            return forward(x)


def normalise_by_first(layer: _BatchNorm, rows: int, x: Tensor) -> Tensor:
    """Batch norm of ``x`` ``[N, C, ...]`` with mean and (biased) variance of its first ``rows`` rows."""
    over = [0, *range(2, x.dim())]
    variance, mean = torch.var_mean(x[:rows], over, correction=0, keepdim=True)
    y = (x - mean) * torch.rsqrt(variance + layer.eps)
    if layer.affine:
        y = y * layer.weight.view(mean.shape) + layer.bias.view(mean.shape)
    return y


@contextmanager
def attributes_set(modules: Sequence[nn.Module], attributes: Callable[[Any], dict[str, Any]]) -> Iterator[None]:
    """Attributes of each module for the time of the block."""
    before = []
    try:
        for module in modules:
            new = attributes(module)
            before.append((module, new.keys(), {key: vars(module)[key] for key in new if key in vars(module)}))
            vars(module).update(new)
        yield
    finally:
        for module, keys, old in before:
            for key in keys:
                del vars(module)[key]
            vars(module).update(old)
