"""The weights that can be pruned, dense or sparse already, under one name: that of the dense model's weight."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..nn import sparsify
from ..nn.base import SparseLayer
from ..ticket import Ticket
from ..ticket_layers import LAYERS, is_pruned, weight_name
from ..ticket_selection import covered


def prunable_layers(model: nn.Module, exclude: Sequence[str] = ()) -> dict[str, nn.Module]:
    """Dense and sparse convolution and linear layers by the name of their weight; a shared weight counts once.

    Raises:
        ValueError: an unknown name in `exclude`, or nothing to prune.
    """
    found = {}
    for name, layer in model.named_modules():
        if isinstance(layer, (*LAYERS, SparseLayer)) and (parameter := parameter_of(layer)) is not None:
            found.setdefault(parameter, (weight_name(name), layer))
    return covered(model, dict(found.values()), exclude)


def parameter_of(layer: nn.Module) -> nn.Parameter | None:
    """What is trained of a layer's weight: the weight itself, or the kept `values`; None for a computed weight."""
    return layer._parameters.get("values" if isinstance(layer, SparseLayer) else "weight")


def shape_of(layer: nn.Module) -> tuple[int, ...]:
    """Shape of the dense weight."""
    return layer.pattern.shape if isinstance(layer, SparseLayer) else tuple(layer.weight.shape)


def scattered(layer: nn.Module, scores: Tensor) -> Tensor:
    """Scores of `parameter_of(layer)` in the weight's shape, float64 on the CPU: -inf where pruned already."""
    scores = scores.detach().cpu().double()
    if not isinstance(layer, SparseLayer):
        return scores
    pattern = layer.pattern
    return pattern.expand(scores).masked_fill_(~pattern.mask(), -torch.inf)


def is_masked(model: nn.Module) -> bool:
    """Whether a layer has a mask of `torch.nn.utils.prune`."""
    return any(isinstance(module, LAYERS) and is_pruned(module) for module in model.modules())


def working_copy(model: nn.Module) -> nn.Module:
    """A copy to compute on, in which every convolution and linear weight takes a gradient.

    Layers with masks of `torch.nn.utils.prune` become sparse ones.
    """
    model = sparsify(model, Ticket.from_prune(model)) if is_masked(model) else copy.deepcopy(model)
    for layer in model.modules():
        if isinstance(layer, (*LAYERS, SparseLayer)) and (parameter := parameter_of(layer)) is not None:
            parameter.requires_grad_(True)
    return model
