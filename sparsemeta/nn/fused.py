"""Batch norm, activation and pooling inside an `nn.Sequential` run as one operation."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..ops.norm_act_pool import norm_act_pool


class FusedSequential(nn.Sequential):
    """An `nn.Sequential` that runs `BatchNorm2d`, `ReLU` or `LeakyReLU`, and `MaxPool2d(2)` in one pass.

    Same modules, same names, same numbers as the `nn.Sequential` it was made from. What cannot be fused runs as there:
    batch norms that read or update running statistics, modules with hooks, other layers.
    """

    def forward(self, x: Tensor) -> Tensor:
        """As `nn.Sequential`."""
        layers = list(self)
        while layers:
            length = fusible(layers, x)
            x = _run_fused(layers[:length], x) if length else layers[0](x)
            del layers[: length or 1]
        return x


def fusible(layers: Sequence[nn.Module], x: Tensor | None = None) -> int:
    """How many of the first layers run as one operation (0: none), on `x` where it is given."""
    if len(layers) < 2 or not _plain(layers[0], nn.BatchNorm2d) or not layers[0].affine:
        return 0
    if not _plain(layers[1], nn.ReLU) and not _plain(layers[1], nn.LeakyReLU):
        return 0
    if x is not None and not (x.dim() == 4 and _on_batch_statistics(layers[0])):
        return 0
    return 3 if len(layers) > 2 and halves(layers[2]) else 2


def fuse(model: nn.Module) -> None:
    """Let every plain `nn.Sequential` of `model` with something to fuse run it fused, in place."""
    for module in model.modules():
        if type(module) is nn.Sequential:
            layers = list(module)
            if any(fusible(layers[i:]) for i in range(len(layers))):
                module.__class__ = FusedSequential


def unfuse(model: nn.Module) -> None:
    """The inverse of `fuse`."""
    for module in model.modules():
        if type(module) is FusedSequential:
            module.__class__ = nn.Sequential


def _run_fused(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    norm, act = layers[:2]
    slope = getattr(act, "negative_slope", 0.0)
    return norm_act_pool(x, norm.weight, norm.bias, norm.eps, slope, pool=len(layers) - 1)


def _plain(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Of that very type, without hooks, and with the forward of its type: nobody looks between the layers."""
    hooked = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks
    return type(layer) is kind and not hooked and "forward" not in vars(layer)


def _on_batch_statistics(norm: nn.BatchNorm2d) -> bool:
    if norm.running_mean is None:
        return True
    return norm.training and not norm.track_running_stats


def halves(pool: nn.Module) -> bool:
    """Whether it is a plain 2x2 max-pooling."""
    wanted = dict(kernel_size=2, stride=2, padding=0, dilation=1, return_indices=False, ceil_mode=False)
    return _plain(pool, nn.MaxPool2d) and all(
        getattr(pool, name) in (value, (value, value)) for name, value in wanted.items()
    )
