"""The parameters of a model as an inner loop sees them: where they live, their rates, whether a loss uses them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

Slots = list[tuple[str, dict[str, Any], str]]


def parameter_slots(model: nn.Module) -> tuple[Slots, dict[str, str]]:
    """Where each parameter lives, as (name, its module's dict, key), and the further names of tied ones.

    Looked up once: a walk over the modules in every clone would cost as much as the clone.
    """
    slots, aliases, first = [], {}, {}
    for prefix, module in model.named_modules():
        for key, parameter in module._parameters.items():
            name = f"{prefix}.{key}" if prefix else key
            if id(parameter) in first:
                aliases[name] = first[id(parameter)]
            elif parameter is not None:
                first[id(parameter)] = name
                slots.append((name, module._parameters, key))
    return slots, aliases


def chosen_slots(slots: Slots, adapt_only: Collection[str] | None, norms: Collection[str]) -> Slots:
    """Those in ``adapt_only`` (None: all), without ``norms``, which have sets of each inner step instead."""
    names = {name for name, _, _ in slots}
    if adapt_only is not None and (strangers := set(adapt_only) - names):
        raise ValueError(
            f"expected adapt_only to name parameters of the model; got {sorted(strangers)}, of {sorted(names)}. "
            "Take names from model.named_parameters()"
        )
    wanted = (names if adapt_only is None else set(adapt_only)) - set(norms)
    return [slot for slot in slots if slot[0] in wanted]


@Mapping.register
class PerParameter(nn.Module):
    """A mapping from parameter names to numbers or tensors; an ``nn.Parameter`` is learned, and part of the state."""

    def __init__(self, entries: Mapping[str, Any]):
        super().__init__()
        self.fixed = {name: entry for name, entry in entries.items() if not isinstance(entry, nn.Parameter)}
        self.names = list(entries)
        for name in self.names:
            if name not in self.fixed:
                self.register_parameter(name.replace(".", "/"), entries[name])  # a dot is not allowed there

    def __getitem__(self, name: str) -> Any:
        return self.fixed[name] if name in self.fixed else getattr(self, name.replace(".", "/"))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    keys, values, items = Mapping.keys, Mapping.values, Mapping.items


def check_rates(lr: Any, names: Iterable[str]) -> None:
    """Raise ``ValueError`` unless ``lr`` is a rate, or a dict of rates with exactly these ``names``."""
    names = set(names)
    if isinstance(lr, Mapping) and lr.keys() != names:
        raise ValueError(f"expected lr for each trainable parameter and no other; it differs in {lr.keys() ^ names}")
    for rate in lr.values() if isinstance(lr, Mapping) else [lr]:
        if not isinstance(rate, Tensor) and not (isinstance(rate, (int, float)) and 0 <= rate < math.inf):
            raise ValueError(f"expected lr to be a finite number >= 0, a tensor, or a dict of those; got {rate!r}")


def check_used(weights: Mapping[str, Tensor], grads: Iterable[Tensor | None]) -> None:
    """Raise ``RuntimeError`` where a gradient is None."""
    if unused := [name for name, grad in zip(weights, grads, strict=True) if grad is None]:
        raise RuntimeError(
            f"expected a loss that depends on every trainable parameter; it does not on {unused}. "
            "Compute it with this clone, freeze them with requires_grad_(False), or pass allow_unused=True"
        )


def check_clone(weights: Mapping[str, Tensor] | None) -> None:
    """Raise ``RuntimeError`` unless there are fast weights."""
    if not weights:
        raise RuntimeError(
            "expected a clone with trainable parameters, got "
            + ("the learner itself; adapt learner.clone()" if weights is None else "only frozen ones")
        )
