"""Model-agnostic meta-learning, the algorithm of which the others are variations."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap

from ..ops.inner_update import inner_update
from .fast_weights import FastWeights
from .parameters import PerParameter, check_clone, check_rates, check_used
from .second_order import check_function, check_second_order, step_by_step


class MAML(FastWeights):
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
    (``requires_grad=False``) stay as they are. Another algorithm has another ``start``, ``updated`` or ``objective``.

    Args:
        model: any module; in ``bn_mode="inductive"`` one that maps a batch ``[N, ...]`` to ``[N, ...]``.
        lr: inner learning rate: a number, a 0-d tensor, or a dict with the names of the parameters of ``model`` that
            the inner loop moves, of numbers or tensors that broadcast to the parameter. An ``nn.Parameter`` is learned
            with the model.
        first_order: treat the inner gradients as constants (FOMAML, section 5.2 there). Otherwise exact.
        bn_mode: where batch norm takes its statistics from: ``"transductive"``, ``"inductive"``, ``"frozen"`` or
            ``"per_step"``, with pitfalls that ``BatchNormMode`` names. The model's running statistics never change.
        allow_unused: let parameters that a loss does not depend on stay as they are, instead of raising.
        second_order: ``"unrolled"`` keeps the graphs of all inner steps; ``"stepwise"`` only the weights before each,
            and runs each step again in backward (``step_by_step``). The gradient is the same.
        adapt_only: names of the parameters that the inner loop moves; None for all.
        steps: inner steps that have batch norms of their own in ``bn_mode="per_step"``.

    Raises:
        ValueError: a rate that is not a finite number of at least 0, rates for other names than the parameters that
            move, an unknown ``second_order`` or name in ``adapt_only``; what ``BatchNormMode`` raises.
    """

    uses_query = True  # whether ``objective`` differentiates the query loss

    def __init__(
        self,
        model: nn.Module,
        lr: float | Tensor | Mapping[str, float | Tensor] = 0.01,
        first_order: bool = False,
        bn_mode: str = "transductive",
        allow_unused: bool = False,
        second_order: str = "unrolled",
        adapt_only: Collection[str] | None = None,
        steps: int = 1,
    ):
        check_second_order(second_order)
        super().__init__(model, bn_mode, adapt_only, steps)
        check_rates(lr, self.start())
        self.lr = PerParameter(lr) if isinstance(lr, Mapping) else lr
        self.first_order, self.allow_unused, self.second_order = first_order, allow_unused, second_order

    def updated(self, weights: Mapping[str, Tensor], grads: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``weights`` of one task after one inner step along ``grads``: ``inner_update(weights, grads, lr)``."""
        new = inner_update(list(weights.values()), list(grads.values()), self.rates(weights))
        return dict(zip(weights, new, strict=True))

    def rates(self, names: Collection[str]) -> Any:
        """The rate of this inner step: one for all, or a list with one for each of ``names``."""
        return [self.lr[name] for name in names] if isinstance(self.lr, Mapping) else self.lr

    def learn_rates(self, starts: Mapping[str, Tensor]) -> None:
        """Make parameters of the rates, starting at the tensors ``starts``, one for each name."""
        self.lr = PerParameter({name: nn.Parameter(rate) for name, rate in starts.items()})

    def objective(self, clone: MAML, query_loss: Tensor, query_x: Tensor, query_y: Tensor) -> Tensor:
        """What the outer loop minimises for one task, given its adapted ``clone``: the query loss."""
        return query_loss

    def advance(self) -> None:
        """Called after each meta-step, for schedules."""

    def clone(
        self, first_order: bool | None = None, allow_unused: bool | None = None, tasks: int | None = None
    ) -> MAML:
        """A learner with fast weights of its own, which ``adapt`` changes; a clone can be cloned again.

        Args:
            first_order, allow_unused: as for ``MAML``, for this clone.
            tasks: T, for fast weights ``[T, ...]``, one row for each task. The clone then takes ``x`` ``[T, N, ...]``
                and runs all tasks at once, one kernel for each layer; adapt it to the sum of the tasks' losses.
        """
        new = self.copied(tasks)
        new.first_order = self.first_order if first_order is None else first_order
        new.allow_unused = self.allow_unused if allow_unused is None else allow_unused
        return new

    def adapt(
        self,
        loss: Tensor | Callable[[MAML], Tensor],
        first_order: bool | None = None,
        allow_unused: bool | None = None,
    ) -> None:
        """One step of the inner loop on the fast weights: ``inner_update(weights, gradient of loss, lr)`` in MAML.

        Args:
            loss: scalar, computed with this clone; or a function that computes it with the clone that it is given.
            first_order, allow_unused: as for ``MAML``, for this step.

        Raises:
            RuntimeError: called on the learner itself; ``loss`` does not depend on some parameter.
            TypeError: a computed ``loss`` where ``second_order="stepwise"`` has to compute it twice.
        """
        check_clone(self.weights)
        first_order = self.first_order if first_order is None else first_order
        allow_unused = self.allow_unused if allow_unused is None else allow_unused
        if self.second_order == "stepwise" and not first_order:
            self.weights = step_by_step(self, check_function(loss), allow_unused)
        else:
            self.weights = self.stepped(loss(self) if callable(loss) else loss, not first_order, allow_unused)
        self.step += 1
        self._support = self._input if self._support is None else self._support

    def stepped(self, loss: Tensor, create_graph: bool, allow_unused: bool) -> dict[str, Tensor]:
        """The fast weights one step further, without changing this clone; those without a gradient as they are."""
        grads = torch.autograd.grad(loss, list(self.weights.values()), create_graph=create_graph, allow_unused=True)
        if not allow_unused:
            check_used(self.weights, grads)
        used = {name: g for name, g in zip(self.weights, grads, strict=True) if g is not None}
        updated = self.updated if self.tasks is None else vmap(self.updated)
        return {**self.weights, **updated({name: self.weights[name] for name in used}, used)}
