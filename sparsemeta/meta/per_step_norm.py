"""Batch norm with statistics and affine parameters of its own for each inner step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class NormSets(nn.Module):
    """What one batch norm of C channels holds, ``sets`` times: weight, bias, running mean and variance ``[sets, C]``.

    Set k belongs to the weights after k inner steps, the last one also to those after more.
    """

    def __init__(self, layer: _BatchNorm, sets: int):
        super().__init__()
        size = sets, layer.num_features
        like = layer.weight if layer.affine else torch.empty(0)
        options = {"device": like.device, "dtype": like.dtype}
        for name in ("weight", "bias"):
            copied = nn.Parameter(getattr(layer, name).detach().expand(size).clone()) if layer.affine else None
            self.register_parameter(name, copied)
        self.register_buffer("running_mean", torch.zeros(size, **options))
        self.register_buffer("running_var", torch.ones(size, **options))

    def forward(self, layer: _BatchNorm, step: int, collect: bool, x: Tensor) -> Tensor:
        """``layer`` on ``x`` ``[N, C, ...]`` after ``step`` inner steps: batch statistics in training, else stored."""
        k = min(step, len(self.running_mean) - 1)
        affine = [None, None] if self.weight is None else [self.weight[k], self.bias[k]]
        if not layer.training:
            return F.batch_norm(x, self.running_mean[k], self.running_var[k], *affine, False, 0.0, layer.eps)
        if collect:
            self._collect(x.detach(), k, 0.1 if layer.momentum is None else layer.momentum)
        return F.batch_norm(x, None, None, *affine, True, 0.0, layer.eps)

    def _collect(self, x: Tensor, k: int, momentum: float) -> None:
        variance, mean = torch.var_mean(x, [0, *range(2, x.dim())])
        self.running_mean[k].lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var[k].lerp_(variance.to(self.running_var.dtype), momentum)


class PerStepNorm(nn.Module):
    """The sets of every batch norm of a model: per-step batch normalisation of MAML++.

    Antoniou et al. 2019 (arXiv 1810.09502, section 4: BNRS and BNWB). The affine parameters move in the outer loop
    alone.

    Args:
        layers: batch norms by name; the sets start at their affine parameters.
        steps: inner steps; there is one set more, for the query pass.
    """

    def __init__(self, layers: Mapping[str, _BatchNorm], steps: int):
        super().__init__()
        if not isinstance(steps, int) or steps < 1:
            raise ValueError(f"expected steps to be an integer of at least 1; got {steps!r}. Give the inner steps")
        for name, layer in layers.items():
            self.add_module(name.replace(".", "/") or "model", NormSets(layer, steps + 1))
