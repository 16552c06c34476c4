"""The layers of a network that the bits of a Lambda pattern stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.conv import _ConvNd

from ..nn import SparseConv2d, SparseLinear

WEIGHTED = (_ConvNd, nn.Linear, SparseConv2d, SparseLinear)
LayerRule = Callable[[nn.Module], Sequence[Sequence[str]]]


@dataclass(frozen=True)
class Layer:
    """What one bit stands for.

    Attributes:
        modules: names of modules that run one after another.
        parameters: names of their trainable parameters.
    """

    modules: tuple[str, ...]
    parameters: tuple[str, ...]


def pattern_layers(model: nn.Module, rule: LayerRule | None = None) -> list[Layer]:
    """The layers of ``model``, first layer first.

    Args:
        model: runs its layers one after another, each once, in the order of ``rule``.
        rule: gives the names of each layer's modules. None for ``blocks``: four blocks and the head of ``Conv4`` and of
            ``ResNet12``; in a plain ``nn.Sequential`` each convolution or linear layer with what follows it.

    Raises:
        ValueError: the rule names something that is no module, or leaves a trainable parameter to no layer or to two,
            or a layer without any.
    """
    groups = (rule or blocks)(model)
    modules, left = dict(model.named_modules()), [name for name, p in model.named_parameters() if p.requires_grad]
    if unknown := [name for group in groups for name in group if name not in modules]:
        raise ValueError(f"expected a rule that names modules of the model; got {unknown}, of {list(modules)}")
    layers = []
    for group in groups:
        own = tuple(name for name in left if any(inside(name, module) for module in group))
        left = [name for name in left if name not in own]
        layers.append(Layer(tuple(group), own))
    empty = [layer.modules for layer in layers if not layer.parameters]
    if left or empty:
        raise ValueError(
            "expected a rule that gives every trainable parameter to one layer, and every layer some; "
            f"got {left} in none, and none in {empty}. Give layers=..., the names of each layer's modules"
        )
    return layers


def inside(name: str, module: str) -> bool:
    """Whether the parameter or module ``name`` is in the module of that name."""
    return not module or name.startswith(f"{module}.")


def blocks(model: nn.Module) -> list[list[str]]:
    """Convolution or linear layers, or whole blocks of them, each with the batch norm and the rest that follows it."""
    groups: list[list[str]] = []
    for name, unit in units(model):
        if weights_of(unit) or not groups:
            groups.append([])
        groups[-1].append(name)
    if len(groups) > 1 and not any(weights_of(model.get_submodule(name)) for name in groups[0]):
        groups[:2] = [groups[0] + groups[1]]  # what comes before the first convolution, such as a batch norm
    return groups


def units(model: nn.Module, name: str = "", root: bool = True) -> Iterator[tuple[str, nn.Module]]:
    """Modules that run one after another: the children, and those of every ``nn.Sequential`` with several weights."""
    several = isinstance(model, nn.Sequential) and weights_of(model) > 1
    if not (several or (root and list(model.children()))):
        yield name, model
        return
    for key, child in model.named_children():
        yield from units(child, f"{name}.{key}" if name else key, root=False)


def weights_of(module: nn.Module) -> int:
    """Convolutions and linear layers in ``module``."""
    return sum(isinstance(m, WEIGHTED) for m in module.modules())
