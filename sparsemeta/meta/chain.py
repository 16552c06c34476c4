"""MAML on a plain few-shot network through `ops.conv_chain`: which models can, and what becomes of the meta-step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import is_
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from .. import backends
from ..nn.base import SparseLayer
from ..ops.conv_chain import ConvChain, Outcome
from .chain_model import FORM, block_of, calls, facts, head_of, objections, split
from .config import TrainConfig
from .maml import MAML

_built: WeakKeyDictionary[nn.Module, tuple] = WeakKeyDictionary()  # the last operation of each model
_found: WeakKeyDictionary[nn.Module, tuple] = WeakKeyDictionary()  # what was last found in it, and when that holds


@dataclass(frozen=True)
class Chain:
    """A learner's model as a chain.

    Attributes:
        operation: what computes.
        parameters: of the model, by name, in the order of the operation's vector.
    """

    operation: ConvChain
    parameters: dict[str, nn.Parameter]

    def run(self, learner: MAML, tasks: Any, steps: int, order: str) -> Outcome:
        """The operation on ``tasks``, from the model's parameters with the learner's rates."""
        like = next(iter(self.parameters.values()))
        images = [x.to(like.dtype) for x in (tasks.support_x, tasks.query_x)]
        theta = torch.cat([p.detach().reshape(-1) for p in self.parameters.values()])
        rates = torch.cat([self._rate(learner.lr, name) for name in self.parameters])
        return self.operation.run(theta, rates, images[0], tasks.support_y, images[1], tasks.query_y, steps, order)

    def meta_gradient(self, learner: MAML, tasks: Any, steps: int) -> Tensor:
        """Query loss and accuracy in percent, ``[T, 2]``; the tasks' mean meta-gradient is added to ``.grad``."""
        outcome = self.run(learner, tasks, steps, "first" if learner.first_order else "second")
        sizes = [p.numel() for p in self.parameters.values()]
        for p, grad in zip(self.parameters.values(), outcome.gradient.split(sizes), strict=True):
            if p.requires_grad:
                p.grad = grad.view_as(p) if p.grad is None else p.grad + grad.view_as(p)
        return judgement(outcome)

    def judged(self, learner: MAML, tasks: Any, steps: int) -> Tensor:
        """Query loss and accuracy in percent after adaptation, ``[T, 2]``."""
        return judgement(self.run(learner, tasks, steps, "none"))

    def _rate(self, lr: Any, name: str) -> Tensor:
        p = self.parameters[name]
        rate = (lr[name] if isinstance(lr, Mapping) else lr) if p.requires_grad else 0.0
        return torch.as_tensor(rate, dtype=p.dtype).expand(p.shape).reshape(-1)


def judgement(outcome: Outcome) -> Tensor:
    return torch.stack([outcome.loss, 100 * outcome.accuracy], 1)


def choose(learner: MAML, tasks: Any, config: TrainConfig) -> Chain | None:
    """The chain with which to run ``tasks``, or None for autograd, as ``config.engine`` says.

    ``"auto"``, the default, takes the chain for a model with sparse layers where it can.

    Raises:
        ValueError: ``"chain"`` for a model that is none, with the reasons.
    """
    if config.engine == "autograd":
        return None
    chain, reasons = recognise(learner, tasks.support_x[0])
    if config.engine == "chain" and reasons:
        raise ValueError(f'expected a chain for engine="chain"; {"; ".join(reasons)}. Use engine="auto"')
    return chain if config.engine == "chain" or (chain and has_sparse_layers(learner.module)) else None


def has_sparse_layers(model: nn.Module) -> bool:
    return any(isinstance(module, SparseLayer) for module in model.modules())


def recognise(learner: MAML, images: Tensor) -> tuple[Chain | None, list[str]]:
    """The learner's model as a chain for batches like ``images`` ``[N, C, H, W]``, or the reasons why it is none.

    A model is looked through once: as long as nothing in it has changed, the answer is the same.
    """
    reasons = backends.cpu.missing() + learner_objections(learner)
    if reasons:
        return None, reasons
    model, size, now = learner.module, images.shape[1:], facts(learner.module)
    of, known, found = _found.get(model, (None, [], None))
    if of != size or len(now) != len(known) or not all(map(is_, now, known)):
        found = search(learner, images)
        _found[model] = size, now, found
    return found


def search(learner: MAML, images: Tensor) -> tuple[Chain | None, list[str]]:
    """``recognise`` for a model that is seen for the first time, or has changed."""
    model = learner.module
    if reasons := objections(model) or backends.cpu.reasons(*model.parameters()):
        return None, reasons
    like = next(model.parameters())
    parts = split(calls(model, learner, images.to(like.dtype)))
    if parts is None:
        return None, [f"its layers do not run one after another as {FORM}"]
    blocks, head = parts
    names = {p: name for name, p in model.named_parameters()}
    parameters = [p for m in (*sum(blocks, []), head) for p in m.parameters()]
    if sorted(map(id, parameters)) != sorted(map(id, names)):
        return None, ["it has parameters that are shared, or used by no layer"]
    key = tuple(map(block_of, blocks)), head_of(head), tuple(images.shape[1:]), like.dtype
    if _built.get(model, (None,))[0] != key:
        _built[model] = key, ConvChain(*key)
    return Chain(_built[model][1], {names[p]: p for p in parameters}), []


def learner_objections(learner: MAML) -> list[str]:
    """Why the chain does not do what ``learner`` does, whatever its model is."""
    found = [] if type(learner) is MAML else [f"the learner is a {type(learner).__name__}"]
    if learner.bn_mode != "transductive":
        found.append(f"bn_mode is {learner.bn_mode!r}")
    rates = learner.lr.values() if isinstance(learner.lr, Mapping) else [learner.lr]
    if any(isinstance(rate, Tensor) and (rate.requires_grad or rate.device.type != "cpu") for rate in rates):
        found.append("its rates are learned, or not on the CPU")
    if learner.start().keys() != {name for name, p in learner.module.named_parameters() if p.requires_grad}:
        found.append("only some parameters adapt")
    if torch.is_autocast_enabled("cpu"):
        found.append("autocast is on")
    return found
