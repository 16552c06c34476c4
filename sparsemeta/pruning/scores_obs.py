"""Plain L-OBS: the layer-wise optimal brain surgeon, on the network as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .probe import Probe
from .scores import Weights, score
from .weights import prunable_layers, shape_of

MAX_ROWS = 4_700  # of a Hessian: its inverse takes minutes and a gigabyte above that; ResNet-12 has 4,609 at most


@score("obs", needs_probe=True)
def obs(
    model: nn.Module, weights: Weights, probe: Probe, damping: float = 1e-6, max_rows: int = MAX_ROWS
) -> dict[str, Tensor]:
    """w^2 / (2 [H^-1]_qq), with H the mean of x x^T over the layer's inputs (Dong et al. 2017, arXiv 1705.07565).

    x is what one output unit sees at one place: a patch `(C / groups, kh, kw)`, or the inputs of a linear layer, and 1
    where the layer has a bias. Layers whose x has more than `max_rows` entries take H's diagonal instead of H.

    Args:
        damping: added to H's diagonal, so that it can be inverted.
    """
    layers = prunable_layers(model)
    layers = {name: layers[name] for name in weights}
    like = next(model.parameters())
    with torch.no_grad():
        hessians = input_hessians(model, layers, lambda: [model(x.to(like)) for x in probe.inputs], max_rows)
    return {name: _saliency(layers[name], weights[name], hessians[name], damping) for name in weights}


def input_hessians(
    model: nn.Module, layers: Mapping[str, nn.Module], run: Callable[[], object], max_rows: int = MAX_ROWS,
    stride: int = 1,
) -> dict[str, Tensor]:
    """Mean of x x^T over everything that enters each layer while `run()` calls the model, float64.

    Args:
        stride: take only every `stride`-th output position on both axes of a convolution.

    Returns:
        `[groups, rows, rows]` for each layer, or the diagonals `[groups, rows]` for more than `max_rows` rows;
        `rows` = entries of one unit's weight, ordered `(C / groups, kh, kw)` as in the weight, and 1 more for the bias,
        whether there is one or not.
    """
    sums: dict[str, Tensor] = {}
    counts = dict.fromkeys(layers, 0)

    def record(name: str, layer: nn.Module, x: Tensor) -> None:
        rows = layer_rows(layer, x.detach().double(), stride)
        product = rows.square().sum(1) if rows.shape[2] > max_rows else rows.transpose(1, 2) @ rows
        sums[name] = sums[name] + product if name in sums else product
        counts[name] += rows.shape[1]

    hooks = [
        layer.register_forward_pre_hook(lambda layer, args, name=name: record(name, layer, args[0]))
        for name, layer in layers.items()
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    if unused := layers.keys() - sums.keys():
        raise ValueError(f"expected a forward pass that runs every layer, got none of {sorted(unused)}; exclude them")
    return {name: sums[name] / counts[name] for name in layers}


def layer_rows(layer: nn.Module, x: Tensor, stride: int = 1) -> Tensor:
    """What an output unit sees: `[groups, positions, rows]`, the last row 1 for the bias."""
    rows = _patches(layer, x, stride) if hasattr(layer, "kernel_size") else x.reshape(1, -1, x.shape[-1])
    return torch.cat([rows, rows.new_ones(*rows.shape[:2], 1)], 2)


def _patches(layer: nn.Module, x: Tensor, stride: int) -> Tensor:
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = F.pad(x, _padding(layer), mode)
    steps = [s * stride for s in layer.stride]
    patches = F.unfold(x, layer.kernel_size, layer.dilation, 0, steps)  # [N, C * kh * kw, positions]
    return patches.unflatten(1, (layer.groups, -1)).permute(1, 0, 3, 2).flatten(1, 2)


def _padding(layer: nn.Module) -> list[int]:
    """Left, right, top, bottom."""
    if isinstance(layer.padding, str):
        spans = zip(layer.dilation, layer.kernel_size, strict=True)
        total = [d * (k - 1) * (layer.padding == "same") for d, k in spans]
        before = [t // 2 for t in total]
        return [before[1], total[1] - before[1], before[0], total[0] - before[0]]
    height, width = layer.padding
    return [width, width, height, height]


def _saliency(layer: nn.Module, weight: nn.Parameter, hessian: Tensor, damping: float) -> Tensor:
    shape, entries = shape_of(layer), hessian.shape[-1] - 1
    if layer.bias is None:
        hessian = hessian[:, :-1] if hessian.dim() == 2 else hessian[:, :-1, :-1]
    inverse = _inverse_diagonal(hessian, damping)[:, :entries]
    of_unit = inverse.repeat_interleave(shape[0] // len(inverse), 0).reshape(shape)
    of_weight = layer.pattern.compress(of_unit) if hasattr(layer, "pattern") else of_unit
    return weight.detach().double().square() / (2 * of_weight)


def _inverse_diagonal(hessian: Tensor, damping: float) -> Tensor:
    """`[groups, rows]`, of a Hessian or of its diagonal."""
    if hessian.dim() == 2:
        return 1 / (hessian + damping)
    eye = torch.eye(hessian.shape[-1], dtype=hessian.dtype, device=hessian.device)
    return torch.cholesky_inverse(torch.linalg.cholesky(hessian + damping * eye)).diagonal(dim1=1, dim2=2)
