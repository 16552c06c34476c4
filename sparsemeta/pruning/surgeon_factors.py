"""What the surgeon knows of a layer: what enters it in the adapted network, and what the loss makes of its outputs."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from .probe import Loss, Network, Probe
from .scores_obs import MAX_ROWS, input_hessians


def layer_factors(
    model: nn.Module, layer: nn.Module, probe: Probe, adapted: bool = True, stride: int = 5, max_rows: int = MAX_ROWS,
    fisher: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Hessian of the squared output error of `layer` in the network *after* adaptation, and Fisher of its outputs.

    The first is the mean of x x^T over what enters the layer, on the support sets: all that the published code of ANP
    takes (Gao et al., CIKM 2021). It counts all output units alike, where the loss that adaptation is for does not: the
    second is the mean of g^2 for each unit, g the gradient of the query loss to its output. Their product is K-FAC's
    Hessian of the loss (Martens & Grosse 2015, arXiv 1503.05671), with the empirical Fisher and of the second factor
    the diagonal alone. How the adaptation itself depends on the layer is left out: d theta' / d theta ~ I.

    Args:
        model: holds `layer`; each task starts from it.
        probe: tasks; each runs through the network that was adapted to it.
        adapted: without it, through `model` itself.
        stride: of the output positions of a convolution whose inputs are taken.
        max_rows: layers with more rows than that (weights of a unit, and 1) give the diagonal only. The default admits
            ResNet-12's last stage with 4,609; a float64 inverse of n rows takes 8 n^2 bytes and some 3 n^3 operations.
        fisher: without it the second is None.

    Returns:
        `[groups, rows, rows]`, or diagonals `[groups, rows]`; the last row is the bias's 1. And `[units]`. All float64.
    """
    like, each = next(model.parameters()), range(len(probe.inputs))
    hessian: Tensor | float = 0.0
    squares: Tensor | float = 0.0
    for index in each:
        network, x = probe.network(index, model, adapted), probe.inputs[index].to(like)
        with torch.no_grad():
            of_task = input_hessians(model, {"": layer}, partial(network, x), max_rows, stride)[""]
        hessian = hessian + of_task / len(each)
        if fisher:
            squares = squares + output_squares(network, layer, probe.objectives[index]) / len(each)
    return hessian, squares if fisher else None


def output_squares(network: Network, layer: nn.Module, objective: Loss) -> Tensor:
    """Mean of g^2 over images and positions, g the gradient of the objective to the output of `layer`: `[units]`."""
    outputs: list[Tensor] = []
    hook = layer.register_forward_hook(lambda layer, args, output: outputs.append(output))
    try:
        loss = objective(network)
    finally:
        hook.remove()
    units = 1 if hasattr(layer, "kernel_size") else -1
    rows = [g.double().movedim(units, -1).reshape(-1, g.shape[units]) for g in torch.autograd.grad(loss, outputs)]
    return torch.cat(rows).square().mean(0)
