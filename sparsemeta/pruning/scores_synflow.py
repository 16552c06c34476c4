"""SynFlow: synaptic flow, a score without data."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .probe import Probe
from .scores import Weights, gradients, score


@score("synflow", needs_probe=True)
def synflow(model: nn.Module, weights: Weights, probe: Probe) -> dict[str, Tensor]:
    """|w| dR/d|w|, with R the sum of the outputs for an image of ones when all weights are positive.

    Tanaka et al. 2020, arXiv 2006.05467, section 6. It only takes the shape of the inputs from `probe`. Biases count
    as 0 and batch norms as the identity, so that every layer's scores sum to R; prune in many rounds (schedule
    `"exponential"`), or layers can still collapse.
    """
    positive(model)
    shape = probe.inputs[0].shape[1:]
    ones = torch.ones(1, *shape, dtype=torch.float64, device=next(model.parameters()).device)
    flow = gradients(model(ones).sum(), weights)
    return {name: weight * flow[name] for name, weight in weights.items()}


def positive(model: nn.Module) -> None:
    """Float64, all weights positive, no biases, batch norms the identity: in place."""
    model.double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.zero_() if name.endswith("bias") else parameter.abs_()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.forward = lambda x: x
