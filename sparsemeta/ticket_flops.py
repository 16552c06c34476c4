"""Multiply-adds of a model, dense and with a ticket: their ratio is the most that sparse kernels can gain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from .pattern import Pattern
from .ticket_layers import LAYERS, match, weight_name


@dataclass(frozen=True)
class Flops:
    """Multiply-adds of one sample by the name of the weight: `dense`, and `kept` with the ticket."""

    dense: dict[str, int]
    kept: dict[str, int]

    @property
    def ratio(self) -> float:
        """Dense over kept, all layers together."""
        return sum(self.dense.values()) / max(sum(self.kept.values()), 1)


def count(model: nn.Module, patterns: Mapping[str, Pattern], input_size: Sequence[int]) -> Flops:
    """See `Ticket.flops`."""
    kept = match(model, patterns, lambda layer: "")
    layers = {weight_name(name): layer for name, layer in model.named_modules() if isinstance(layer, LAYERS)}
    positions = _output_positions(model, layers, input_size)
    numel = {name: layer.weight.numel() for name, layer in layers.items()}
    nnz = {name: kept[layer].nnz if layer in kept else numel[name] for name, layer in layers.items()}
    return Flops(
        dense={name: positions[name] * numel[name] for name in layers},
        kept={name: positions[name] * nnz[name] for name in layers},
    )


def _output_positions(model: nn.Module, layers: Mapping[str, nn.Module], input_size: Sequence[int]) -> Counter[str]:
    """How often one sample uses each weight: pixels of the layer's output, over all its calls."""
    positions: Counter[str] = Counter()
    example = next(model.parameters(), torch.empty(0))
    with ExitStack() as stack:
        for name, layer in layers.items():
            def record(layer, _, output, name=name):
                positions[name] += output.numel() // layer.weight.shape[0]
            stack.callback(layer.register_forward_hook(record).remove)
        stack.enter_context(_evaluating(model))
        model(torch.zeros(1, *input_size, dtype=example.dtype, device=example.device))
    return positions


@contextmanager
def _evaluating(model: nn.Module):
    """`model.eval()` without gradients, and every module's own mode again afterwards."""
    training = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad():
            model.eval()
            yield
    finally:
        for module, mode in training.items():
            module.training = mode
