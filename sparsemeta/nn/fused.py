"""Batch norm, activation and pooling in an `nn.Sequential`, and the end of a `Residual`, run as one operation."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..ops.norm_act_pool import Norm, norm_act_pool
from .residual import Residual


class FusedSequential(nn.Sequential):
    """An `nn.Sequential` that runs `BatchNorm2d`, `ReLU` or `LeakyReLU`, and `MaxPool2d(2)` in one pass.

    Same modules, same names, same numbers as the `nn.Sequential` it was made from. What cannot be fused runs as there:
    batch norms that update running statistics, modules with hooks, other layers.
    """

    def forward(self, x: Tensor) -> Tensor:
        """As `nn.Sequential`."""
        layers = list(self)
        while layers:
            length = fusible(layers) if ready(layers[0]) else 0
            x = _run_fused(layers[:length], x) if length else layers[0](x)
            del layers[: length or 1]
        return x


class FusedResidual(Residual):
    """A `Residual` that runs its last batch norms, that of the shortcut too, the sum, `act` and `pool` in one pass.

    Same modules, same names, same numbers as the `Residual` it was made from; what cannot be fused runs as there.
    """

    def forward(self, x: Tensor) -> Tensor:
        """As `Residual`."""
        *convs, last = self.convs
        *before, norm = _parts(last)
        end = [norm, self.act, *([] if _plain(self.pool, nn.Identity) else [self.pool])]
        if not (fusible(end) == len(end) > 1 and ready(norm)):
            return super().forward(x)
        deep = x
        for layer in (*convs, *before):
            deep = layer(deep)
        return _run_fused(end, deep, _residual(self.shortcut, x, norm.eps))


FUSED = {nn.Sequential: FusedSequential, Residual: FusedResidual}


def fuse(model: nn.Module) -> None:
    """Let every plain `nn.Sequential` and `Residual` of `model` with something to fuse run it fused, in place."""
    for module in model.modules():
        layers = list(module) if type(module) is nn.Sequential else []
        if type(module) is Residual or any(fusible(layers[i:]) for i in range(len(layers))):
            module.__class__ = FUSED[type(module)]


def unfuse(model: nn.Module) -> None:
    """The inverse of `fuse`."""
    for module in model.modules():
        for plain, fused in FUSED.items():
            if type(module) is fused:
                module.__class__ = plain


def fusible(layers: Sequence[nn.Module]) -> int:
    """How many of the first layers run as one (0: none): batch norm, then an activation or none, a pooling or none."""
    if not (layers and _plain(layers[0], nn.BatchNorm2d) and layers[0].affine):
        return 0
    length = 1
    if len(layers) > length and _rises(layers[length]):
        length += 1
    return length + (len(layers) > length and halves(layers[length]))


def ready(norm: nn.Module) -> bool:
    """Whether a batch norm updates no running statistics."""
    return not (norm.training and getattr(norm, "track_running_stats", False) and norm.running_mean is not None)


def halves(pool: nn.Module) -> bool:
    """Whether it is a plain 2x2 max-pooling."""
    wanted = dict(kernel_size=2, stride=2, padding=0, dilation=1, return_indices=False, ceil_mode=False)
    return _plain(pool, nn.MaxPool2d) and all(
        getattr(pool, name) in (value, (value, value)) for name, value in wanted.items()
    )


def _run_fused(layers: Sequence[nn.Module], x: Tensor, residual: Tensor | Norm | None = None) -> Tensor:
    norm, *rest = layers
    slope = next((getattr(act, "negative_slope", 0.0) for act in rest if not isinstance(act, nn.MaxPool2d)), 1.0)
    pool = 2 if isinstance(layers[-1], nn.MaxPool2d) else 1
    x, weight, bias, mean, var = _operands(norm, x)
    return norm_act_pool(x, weight, bias, norm.eps, slope, pool, mean=mean, var=var, residual=residual)


def _operands(norm: nn.BatchNorm2d, x: Tensor) -> Norm:
    statistics = () if norm.training else (norm.running_mean, norm.running_var)
    return Norm(x, norm.weight, norm.bias, *statistics)


def _residual(shortcut: nn.Module, x: Tensor, eps: float) -> Tensor | Norm:
    """What is added, its batch norm still to come where it ends in one that can be fused."""
    *before, norm = _parts(shortcut)
    if not (fusible([norm]) and ready(norm) and norm.eps == eps):
        return shortcut(x)
    for layer in before:
        x = layer(x)
    return _operands(norm, x)


def _parts(module: nn.Module) -> list[nn.Module]:
    """What a plain sequence runs, or the module itself."""
    sequence = _plain(module, nn.Sequential, FusedSequential) and len(module)
    return list(module) if sequence else [module]


def _rises(act: nn.Module) -> bool:
    """Whether it is a plain activation that max-pooling commutes with."""
    return _plain(act, nn.ReLU) or (_plain(act, nn.LeakyReLU) and act.negative_slope >= 0)


def _plain(layer: nn.Module, *kinds: type[nn.Module]) -> bool:
    """Of that very type, without hooks, and with the forward of its type: nobody looks between the layers."""
    hooked = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks
    return type(layer) in kinds and not hooked and "forward" not in vars(layer)
