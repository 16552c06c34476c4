"""Dead structure of a ticket: units that nothing enters or leaves, and what that leaves of the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from ..nn import sparsify
from ..ticket import Ticket
from .scores import gradients
from .scores_synflow import positive
from .weights import parameter_of, prunable_layers, shape_of, working_copy


@dataclass(frozen=True)
class DeadUnits:
    """Counts by the name of the weight.

    Attributes:
        outputs: output units without any weight.
        inputs: input units (channels of a group) that no output unit reads.
        alive: kept weights on some path from the input to the output of the network.
        numel: weights, kept and pruned.
    """

    outputs: dict[str, int]
    inputs: dict[str, int]
    alive: dict[str, int]
    numel: dict[str, int]

    @property
    def effective_sparsity(self) -> float:
        """Fraction of the weights that is pruned or on no path: what a network without the dead structure has left."""
        return 1 - sum(self.alive.values()) / max(sum(self.numel.values()), 1)


def dead_units(model: nn.Module, ticket: Ticket, input_size: Sequence[int]) -> DeadUnits:
    """Dead structure of `ticket` in `model`.

    A kept weight is alive if it lies on a path from input to output. Found by one pass forward and back with every kept
    weight 1 (synaptic flow, Tanaka et al. 2020, arXiv 2006.05467); max-pooling modules pass on all that enters them.

    Args:
        model: dense; stays as it is.
        input_size: `(C, H, W)` of one sample.

    Raises:
        TicketError: the ticket does not fit the model.
    """
    used = {name: pattern.mask().flatten(2) if len(pattern.shape) > 2 else pattern.mask()[..., None]
            for name, pattern in ticket.items()}  # fmt: skip  [O, I, taps]
    return DeadUnits(
        outputs={name: int((~mask.any(2).any(1)).sum()) for name, mask in used.items()},
        inputs={name: int((~mask.any(2).any(0)).sum()) for name, mask in used.items()},
        alive=_alive(model, ticket, input_size),
        numel={name: pattern.numel for name, pattern in ticket.items()},
    )


def _alive(model: nn.Module, ticket: Ticket, input_size: Sequence[int]) -> dict[str, int]:
    model = working_copy(sparsify(model, ticket))
    positive(model)
    layers = prunable_layers(model)
    for layer in layers.values():
        fan_in = parameter_of(layer).numel() / shape_of(layer)[0]
        nn.init.constant_(parameter_of(layer), 1 / max(fan_in, 1))  # 1 would overflow in deep networks
    for module in model.modules():
        if isinstance(module, nn.MaxPool2d):
            module.forward = lambda x, pool=module: F.avg_pool2d(x, pool.kernel_size, pool.stride, pool.padding)
    example = next(model.parameters())
    output = model(torch.ones(1, *input_size, dtype=torch.float64, device=example.device))
    flow = gradients(output.sum(), {name: parameter_of(layer) for name, layer in layers.items()})
    return {name: int((flow[name] > 0).sum()) for name in ticket}
