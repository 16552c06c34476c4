"""From a dense model and a ticket to a sparse model, and back."""

from __future__ import annotations

import copy
from collections.abc import Callable

from torch import nn
from torch.nn.utils import prune

from ..ticket import Ticket
from ..ticket_layers import LAYERS, match, weight_name, weight_parameter
from .base import SparseLayer, check_backend
from .fused import fuse, unfuse
from .layers import SparseConv2d, SparseLinear

_SPARSE = {nn.Conv2d: SparseConv2d, nn.Linear: SparseLinear}


def sparsify(model: nn.Module, ticket: Ticket, backend: str | None = "auto", inplace: bool = False) -> nn.Module:
    """Replace every layer that the ticket covers by a sparse one with the layer's present weights where kept.

    Runs of batch norm, ReLU or leaky ReLU, and 2x2 max-pooling in an `nn.Sequential`, and the end of a residual block
    (`sparsemeta.nn.Residual`, as in `ResNet12`) are computed in one pass, to the same numbers (`nn/fused.py`).
    Everything else stays: names, bias, mode, device, dtype, `requires_grad`, layers and weights used in two places.
    The parameter `<layer>.weight` becomes `<layer>.values`, so make the optimiser afterwards. Masks that
    `torch.nn.utils.prune` has put on a covered layer are applied, and are gone in the sparse one.

    Args:
        backend: for every layer; `None` / `"auto"` is the fastest that can run the input.
        inplace: change `model` itself; otherwise a copy is returned and `model` stays as it is.

    Raises:
        TicketError: the ticket does not fit the model, or a layer cannot be replaced (a subclass, hooks).
        ValueError: an unknown backend, or `inplace` where the model itself is the layer.
        RuntimeError: the named backend cannot run here.
        Whatever is raised, nothing has been changed.
    """
    if not isinstance(ticket, Ticket):
        raise TypeError(f"expected a Ticket, got {type(ticket).__name__}; use Ticket.from_masks, magnitude or load")
    check_backend(backend)
    layers = match(model, ticket, _objection)
    new = {layer: _SPARSE[type(layer)].from_dense(layer, pattern, backend) for layer, pattern in layers.items()}
    sparse = _replaced(model, new, weight_parameter, "values", inplace)
    fuse(sparse)
    return sparse


def densify(sparse: nn.Module, inplace: bool = False) -> nn.Module:
    """The ordinary model with `nn.Conv2d` and `nn.Linear`, zeros where pruned: the inverse of `sparsify`.

    Args:
        inplace: change `sparse` itself; otherwise a copy is returned and `sparse` stays as it is.

    Raises:
        ValueError: `inplace` where the model itself is a sparse layer.
    """
    new = {layer: layer.to_dense() for layer in sparse.modules() if isinstance(layer, SparseLayer)}
    dense = _replaced(sparse, new, lambda layer: layer.values, "weight", inplace)
    unfuse(dense)
    return dense


def ticket_of(model: nn.Module) -> Ticket:
    """Ticket of a sparse model, with its weights named as in the dense one. Raises `ValueError` if it has none."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, SparseLayer)}
    if not layers:
        raise ValueError(f"expected a model with sparse layers, got {type(model).__name__} without; use sparsify first")
    first = {layer.values: name for name, layer in reversed(layers.items())}  # a shared weight has its first name
    return Ticket({weight_name(name): layer.pattern for name, layer in layers.items() if first[layer.values] == name})


def _objection(layer: nn.Module) -> str:
    if type(layer) not in LAYERS:
        return f"it belongs to {type(layer).__name__}, a subclass that may use its weight in another way"
    hooks = [*layer._forward_hooks.values(), *layer._backward_hooks.values(), *layer._backward_pre_hooks.values()]
    hooks += [hook for hook in layer._forward_pre_hooks.values() if not _masks_weight(hook)]
    return "its layer has hooks, which would be lost: remove them first" if hooks else ""


def _masks_weight(hook: Callable) -> bool:
    return isinstance(hook, prune.BasePruningMethod) and hook._tensor_name == "weight"


def _replaced(
    model: nn.Module, new: dict[nn.Module, nn.Module], old_weight: Callable, new_weight: str, inplace: bool
) -> nn.Module:
    """`model` or a copy, with `new` in place of the old layers; the bias and what layers share go along."""
    if inplace and model in new:
        name = type(model).__name__
        raise ValueError(f"expected a model with layers inside for inplace=True, got a {name}; use inplace=False")
    memo: dict[int, object] = {}  # of deepcopy: an old layer's "copy" is its new one
    shared: dict[nn.Parameter, nn.Parameter] = {}
    for old, layer in new.items():
        setattr(layer, new_weight, shared.setdefault(old_weight(old), getattr(layer, new_weight)))
        layer.bias = old.bias if inplace else copy.deepcopy(old.bias, memo)
    if not inplace:
        return copy.deepcopy(model, memo | {id(old): layer for old, layer in new.items()})
    for parent in model.modules():
        parent._modules.update({name: new[child] for name, child in parent._modules.items() if child in new})
    return model
