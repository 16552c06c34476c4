"""Which layers of a model a ticket speaks about, and whether they fit it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from .pattern import Pattern

LAYERS = (nn.Conv2d, nn.Linear)


class TicketError(ValueError):
    """A ticket file that cannot be read, or a ticket that does not fit a model."""


def prunable(model: nn.Module) -> dict[str, nn.Module]:
    """Convolution and linear layers by the name of their weight, `"features.0.weight"`; a shared weight counts once."""
    found, seen = {}, set()
    for name, module in model.named_modules():
        if isinstance(module, LAYERS) and (parameter := weight_parameter(module)) is not None and parameter not in seen:
            found[weight_name(name)] = module
            seen.add(parameter)
    return found


def weight_name(module_name: str) -> str:
    """Name of the weight of the layer of that name; the model itself is named `""`."""
    return f"{module_name}.weight" if module_name else "weight"


def is_pruned(layer: nn.Module) -> bool:
    """Whether `torch.nn.utils.prune` masks the weight of this layer."""
    return "weight_mask" in layer._buffers and "weight_orig" in layer._parameters


def weight_parameter(layer: nn.Module) -> nn.Parameter | None:
    """The parameter behind `layer.weight`, which `torch.nn.utils.prune` keeps as `weight_orig`."""
    return layer._parameters.get("weight_orig" if is_pruned(layer) else "weight")


def current_weight(layer: nn.Module) -> Tensor:
    """The weight of the layer's next forward pass (prune's `layer.weight` is as old as the last one), without graph."""
    weight = weight_parameter(layer).detach()
    return weight * layer.weight_mask if is_pruned(layer) else weight


def match(
    model: nn.Module, patterns: Mapping[str, Pattern], objection: Callable[[nn.Module], str]
) -> dict[nn.Module, Pattern]:
    """Every layer that holds a weight of the ticket, with its pattern; layers that share a weight are all there.

    Args:
        objection: why a layer cannot be used, in a few words; empty if it can.

    Raises:
        TicketError: names the weights that are missing, of another shape or under objection.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    holders = _holders(model)
    found: dict[nn.Module, Pattern] = {}
    problems: dict[str, str] = {}
    for name, pattern in patterns.items():
        owner, _, attribute = name.rpartition(".")
        layer = modules.get(owner) if attribute == "weight" else None
        parameter = weight_parameter(layer) if layer is not None else None
        for holder in holders.get(parameter, [layer]):
            if problem := _misfit(holder, pattern, objection) or _conflict(found.get(holder), pattern):
                problems[name] = problem
            found[holder] = pattern
    if problems:
        raise TicketError(_complaint(problems, len(patterns)))
    return found


def _holders(model: nn.Module) -> dict[nn.Parameter, list[nn.Module]]:
    found: dict[nn.Parameter, list[nn.Module]] = {}
    for module in model.modules():
        for parameter in filter(lambda p: p is not None, module._parameters.values()):
            found.setdefault(parameter, []).append(module)
    return found


def _misfit(layer: nn.Module | None, pattern: Pattern, objection: Callable[[nn.Module], str]) -> str:
    if layer is None:
        return "the model has no such weight"
    if isinstance(getattr(layer, "pattern", None), Pattern):
        return "its layer is sparse already: use densify(model) first"
    if not isinstance(layer, LAYERS):
        return f"it belongs to {type(layer).__name__}, and only Conv2d and Linear can be sparse"
    if (weight := weight_parameter(layer)) is None:
        return "it is computed (a parametrization?), not a parameter: make it one first"
    if weight.shape != pattern.shape:
        return f"its shape is {pattern.shape} in the ticket, {tuple(weight.shape)} in the model"
    return objection(layer)


def _conflict(other: Pattern | None, pattern: Pattern) -> str:
    return "" if other in (None, pattern) else "it is shared with a weight of another pattern in the ticket"


def _complaint(problems: Mapping[str, str], total: int) -> str:
    shown = "; ".join(f"{name!r}: {problem}" for name, problem in list(problems.items())[:5])
    more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
    return (
        f"expected a model that all {total} weights of the ticket fit, got {len(problems)} that do not: {shown}{more}. "
        f"Use this model's own ticket, or one made without these layers (exclude=...)"
    )
