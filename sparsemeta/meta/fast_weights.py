"""A model run with weights of a clone's own, for one task or for many at once: what every learner is."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call, vmap

from .batch_norm import BatchNormMode
from .parameters import chosen_slots, parameter_slots


class FastWeights(nn.Module):
    """A model, and in a clone of it fast weights in place of some of its parameters; see ``MAML`` for the arguments.

    Attributes:
        module: the model, shared by all clones.
        weights: fast weights by parameter name; None in the learner itself.
        step: inner steps that this clone has taken.
        tasks: T in a clone that holds weights ``[T, ...]`` of as many tasks, otherwise None.
        norms: batch norm's sets of each step in ``bn_mode="per_step"``, otherwise None.
    """

    def __init__(self, model: nn.Module, bn_mode: str, adapt_only: Collection[str] | None, steps: int):
        super().__init__()
        self.bn_mode, self._batch_norm = bn_mode, BatchNormMode(model, bn_mode, steps)
        slots, self._aliases = parameter_slots(model)
        self._slots = chosen_slots(slots, adapt_only, self._batch_norm.replaced)
        self.module, self.norms = model, self._batch_norm.per_step
        self.weights: dict[str, Tensor] | None = None
        self.step, self.tasks = 0, None
        self._input = self._support = None

    def start(self) -> dict[str, Tensor]:
        """The weights that an inner loop moves, where it starts."""
        return {n: params[key] for n, params, key in self._slots if params[key].requires_grad}

    def copied(self, tasks: int | None) -> FastWeights:
        """One with fast weights of its own, which start at those of this one, for each of ``tasks`` if given."""
        new = copy.copy(self)
        new.weights = self.start() if self.weights is None else self.weights
        if tasks is not None:
            new.weights = {name: w.expand(tasks, *w.shape) for name, w in new.weights.items()}
            new.tasks = tasks
        return new

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The model on ``x``, with the fast weights in a clone.

        In ``bn_mode="inductive"`` the batch of the first adaptation is the support set; what comes later is normalised
        with its statistics, what came before with its own.
        """
        if self.weights is not None:
            self._input = x
        support = None if self._support is x else self._support

        def run(weights: Mapping[str, Tensor] | None, x: Tensor, support: Tensor | None) -> Any:
            return self._batch_norm.run(
                lambda batch: self._call(weights, (batch, *args), kwargs), x, support, self.step
            )

        if self.tasks is not None:
            run = vmap(run, (0, 0, None if support is None else 0), randomness="different")
        return run(self.weights, x, support)

    def _call(self, weights: Mapping[str, Tensor] | None, args: tuple, kwargs: dict[str, Any]) -> Any:
        if weights is None:
            return self.module(*args, **kwargs)
        aliases = {alias: weights[name] for alias, name in self._aliases.items() if name in weights}
        return functional_call(self.module, {**weights, **aliases}, args, kwargs, tie_weights=False)

    def named_parameters(self, prefix: str = "", *args: Any, **kwargs: Any) -> Iterator[tuple[str, Tensor]]:
        """The parameters, with the fast weights in place of the model's in a clone."""
        start = len(f"{prefix}.module." if prefix else "module.")
        for name, parameter in super().named_parameters(prefix, *args, **kwargs):
            yield name, (self.weights or {}).get(name[start:], parameter)
