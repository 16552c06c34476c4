"""Batch norm with affine parameters of its own for each inner step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class NormSets(nn.Module):
    """``sets`` copies of the affine parameters of a batch norm of C channels: ``weight`` and ``bias`` ``[sets, C]``.

    Set k belongs to the weights after k inner steps, the last one also to those after more.
    """

    def __init__(self, layer: _BatchNorm, sets: int):
        super().__init__()
        for name in ("weight", "bias") if layer.affine else ():
            affine = getattr(layer, name)
            rows = affine.detach().expand(sets, -1).clone()
            self.register_parameter(name, nn.Parameter(rows, affine.requires_grad))

    def after(self, step: int) -> dict[str, Any]:
        """``weight`` and ``bias`` ``[C]`` after ``step`` inner steps; none for a batch norm without."""
        return {name: rows[min(step, len(rows) - 1)] for name, rows in self.named_parameters()}


class PerStepNorm(nn.Module):
    """The sets of every batch norm of a model: per-step batch normalisation of MAML++.

    Antoniou et al. 2019 (arXiv 1810.09502, section 4: BNRS and BNWB). The affine parameters move in the outer loop
    alone. Each step's statistics are those of the batch at hand, in ``eval()`` too, as in the authors' published code,
    which never reads the running ones that it stores; so none are stored here.

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
