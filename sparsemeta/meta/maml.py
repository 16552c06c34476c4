"""Model-agnostic meta-learning."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..ops.inner_update import inner_update
from .batch_norm import BatchNormMode


class MAML(nn.Module):
    """Model-agnostic meta-learning (Finn et al. 2017, arXiv 1703.03400), in the shape of learn2learn's.

    ```python
    learner = MAML(model, lr=0.4)
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-3)
    clone = learner.clone()
    clone.adapt(cross_entropy(clone(support_x), support_y))     # the inner loop: once or more
    cross_entropy(clone(query_x), query_y).backward()           # the meta-gradient, in the parameters of model
    ```

    The parameters are the model's own. A clone shares the model, modes and buffers included, and owns only its fast
    weights, ``clone.weights``; it starts at its parent's and differentiates back to them. Frozen parameters
    (``requires_grad=False``) stay as they are.

    Args:
        model: any module; in ``bn_mode="inductive"`` one that maps a batch ``[N, ...]`` to ``[N, ...]``.
        lr: inner learning rate: a number, a 0-d tensor, or a dict with the names of the trainable parameters of
            ``model``, of numbers or tensors that broadcast to the parameter. An ``nn.Parameter`` is learned with the
            model.
        first_order: treat the inner gradients as constants (FOMAML, section 5.2 there). Otherwise exact.
        bn_mode: where batch norm takes its statistics from: ``"transductive"``, ``"inductive"`` or ``"frozen"``, with
            pitfalls that ``BatchNormMode`` names. Inner loops never change running statistics.
        allow_unused: let parameters that a loss does not depend on stay as they are, instead of raising.

    Raises:
        ValueError: a rate that is not a positive finite number, rates for other names than the trainable parameters';
            what ``BatchNormMode`` raises.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float | Tensor | Mapping[str, float | Tensor] = 0.01,
        first_order: bool = False,
        bn_mode: str = "transductive",
        allow_unused: bool = False,
    ):
        super().__init__()
        self.bn_mode, self._batch_norm = bn_mode, BatchNormMode(model, bn_mode)
        check_rates(lr, model)
        self.module = model
        self.lr, self.first_order, self.allow_unused = lr, first_order, allow_unused
        self.weights: dict[str, Tensor] | None = None
        self._slots, self._aliases = parameter_slots(model)
        self._input = self._support = None

    def clone(self, first_order: bool | None = None, allow_unused: bool | None = None) -> MAML:
        """A learner with fast weights of its own, which ``adapt`` changes; a clone can be cloned again."""
        new = copy.copy(self)
        if self.weights is None:
            new.weights = {n: params[key] for n, params, key in self._slots if params[key].requires_grad}
        new.first_order = self.first_order if first_order is None else first_order
        new.allow_unused = self.allow_unused if allow_unused is None else allow_unused
        return new

    def adapt(self, loss: Tensor, first_order: bool | None = None, allow_unused: bool | None = None) -> None:
        """One step of the inner loop on the fast weights: ``inner_update(weights, gradient of loss, lr)``.

        Args:
            loss: scalar, computed with this clone.
            first_order, allow_unused: as for ``MAML``, for this step.

        Raises:
            RuntimeError: called on the learner itself; ``loss`` does not depend on some parameter.
        """
        if not self.weights:
            raise RuntimeError(
                "expected a clone with trainable parameters, got "
                + ("the learner itself; adapt learner.clone()" if self.weights is None else "only frozen ones")
            )
        first_order = self.first_order if first_order is None else first_order
        weights = list(self.weights.values())
        grads = torch.autograd.grad(loss, weights, create_graph=not first_order, allow_unused=True)
        if not (self.allow_unused if allow_unused is None else allow_unused):
            check_used(self.weights, grads)
        lr = [self.lr[name] for name in self.weights] if isinstance(self.lr, Mapping) else self.lr
        self.weights = dict(zip(self.weights, inner_update(weights, grads, lr), strict=True))
        self._support = self._input if self._support is None else self._support

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The model on ``x``, with the fast weights in a clone.

        In ``bn_mode="inductive"`` the batch of the first adaptation is the support set; what comes later is normalised
        with its statistics, what came before with its own.
        """
        if self.weights is not None:
            self._input = x
        return self._batch_norm.run(lambda batch: self._call((batch, *args), kwargs), x, self._support)

    def _call(self, args: tuple, kwargs: dict[str, Any]) -> Any:
        if self.weights is None:
            return self.module(*args, **kwargs)
        aliases = {alias: self.weights[name] for alias, name in self._aliases.items() if name in self.weights}
        return functional_call(self.module, {**self.weights, **aliases}, args, kwargs, tie_weights=False)

    def named_parameters(self, prefix: str = "", *args: Any, **kwargs: Any) -> Iterator[tuple[str, Tensor]]:
        """The model's parameters, the fast weights in their place in a clone."""
        start = len(f"{prefix}.module." if prefix else "module.")
        for name, parameter in super().named_parameters(prefix, *args, **kwargs):
            yield name, (self.weights or {}).get(name[start:], parameter)


def parameter_slots(model: nn.Module) -> tuple[list[tuple[str, dict[str, Any], str]], dict[str, str]]:
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


def check_rates(lr: Any, model: nn.Module) -> None:
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    if isinstance(lr, Mapping) and lr.keys() != names:
        raise ValueError(f"expected lr for each trainable parameter and no other; it differs in {lr.keys() ^ names}")
    for rate in lr.values() if isinstance(lr, Mapping) else [lr]:
        if not isinstance(rate, Tensor) and not (isinstance(rate, (int, float)) and 0 <= rate < math.inf):
            raise ValueError(f"expected lr to be a finite number >= 0, a tensor, or a dict of those; got {rate!r}")


def check_used(weights: Mapping[str, Tensor], grads: tuple[Tensor | None, ...]) -> None:
    if unused := [name for name, grad in zip(weights, grads, strict=True) if grad is None]:
        raise RuntimeError(
            f"expected a loss that depends on every trainable parameter; it does not on {unused}. "
            "Compute it with this clone, freeze them with requires_grad_(False), or pass allow_unused=True"
        )
