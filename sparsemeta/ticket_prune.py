"""Masks of `torch.nn.utils.prune`, both ways."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.utils import prune

from .pattern import Pattern
from .ticket_layers import LAYERS, is_pruned, match, prunable


def read_masks(model: nn.Module) -> dict[str, Tensor]:
    """See `Ticket.from_prune`."""
    _check_only_weights(model)
    masks = {name: _as_bool(name, layer.weight_mask) for name, layer in prunable(model).items() if is_pruned(layer)}
    if not masks:
        raise ValueError(
            f"expected a model pruned by torch.nn.utils.prune, got {type(model).__name__} without any weight_mask; "
            f"use Ticket.magnitude(model), or Ticket.from_masks for masks kept elsewhere"
        )
    return masks


def apply_masks(model: nn.Module, patterns: Mapping[str, Pattern]) -> nn.Module:
    """See `Ticket.to_prune`."""
    layers = match(model, patterns, lambda layer: "it is pruned already: use prune.remove first" * is_pruned(layer))
    for layer, pattern in layers.items():
        prune.custom_from_mask(layer, "weight", pattern.mask(layer.weight.device))
    return model


def _check_only_weights(model: nn.Module) -> None:
    """A ticket that silently left a pruned bias dense would not be the model that was pruned."""
    for name, module in model.named_modules():
        hooks = [hook for hook in module._forward_pre_hooks.values() if isinstance(hook, prune.BasePruningMethod)]
        for pruned in (hook._tensor_name for hook in hooks):
            if pruned != "weight" or not isinstance(module, LAYERS):
                raise ValueError(
                    f"expected pruning of Conv2d and Linear weights only, got {pruned!r} of {name!r}, a "
                    f"{type(module).__name__}; make that permanent with torch.nn.utils.prune.remove first"
                )


def _as_bool(name: str, mask: Tensor) -> Tensor:
    kept = mask != 0
    if not mask[kept].eq(1).all():
        raise ValueError(f"expected a mask of zeros and ones, got other values in the mask of {name!r}; round it first")
    return kept
