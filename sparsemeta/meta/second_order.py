"""The exact second-order meta-gradient step by step: memory for one inner step, whatever their number."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from .maml import MAML

SECOND_ORDERS = ("unrolled", "stepwise")


def step_by_step(clone: MAML, loss: Callable[[MAML], Tensor], allow_unused: bool) -> dict[str, Tensor]:
    """The weights of ``clone`` after one inner step on ``loss(clone)``, of which autograd keeps only those before it.

    With theta_k before step k and v the meta-gradient, ``v_k = v_{k+1} - H_k (a v_{k+1})``: backward runs step k again
    from theta_k, with a graph of that step alone, and pulls v back through it (reverse over reverse). The gradients of
    everything else that the step uses, such as learned rates, come with it. Backward itself has no derivative.

    ``loss`` must give the same again when called a second time; random numbers and autocast are restored for it.
    """
    view = copy.copy(clone)
    held = [p for _, p in nn.Module.named_parameters(clone) if p.requires_grad]  # the fast weights hide none
    new = Step.apply(view, loss, allow_unused, *clone.weights.values(), *held)
    clone._input = view._input
    return dict(zip(clone.weights, new, strict=True))


class Step(torch.autograd.Function):
    """``*weights, *held -> *new weights``; ``held`` are parameters that the step may use besides."""

    @staticmethod
    def forward(ctx: Any, view: MAML, loss: Callable, allow_unused: bool, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.names, ctx.loss, ctx.allow_unused = list(view.weights), loss, allow_unused
        ctx.surroundings = Surroundings(tensors[0].device)
        ctx.save_for_backward(*tensors)
        _, new = retaken(view, ctx, tensors, create_graph=False)
        ctx.view, view.weights = view, None
        return tuple(w.detach() for w in new)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *v: Tensor) -> tuple[Tensor | None, ...]:
        with ctx.surroundings.restored():
            leaves, new = retaken(copy.copy(ctx.view), ctx, ctx.saved_tensors, create_graph=True)
        held = ctx.saved_tensors[len(leaves) :]
        return None, None, None, *torch.autograd.grad(new, [*leaves, *held], v, allow_unused=True)


def retaken(view: MAML, ctx: Any, tensors: Sequence[Tensor], create_graph: bool) -> tuple[list[Tensor], list[Tensor]]:
    """The weights before the step as leaves, and those after it."""
    leaves = [t.detach().requires_grad_() for t in tensors[: len(ctx.names)]]
    view.weights = dict(zip(ctx.names, leaves, strict=True))
    with torch.enable_grad():
        return leaves, list(view.stepped(ctx.loss(view), create_graph, ctx.allow_unused).values())


class Surroundings:
    """Random state and autocast, as they are now."""

    def __init__(self, device: torch.device):
        self.kind, self.gpus = device.type, [device] if device.type == "cuda" else []
        self.autocast = torch.get_autocast_dtype(self.kind), torch.is_autocast_enabled(self.kind)
        self.random = torch.get_rng_state()
        self.random_gpus = [torch.cuda.get_rng_state(gpu) for gpu in self.gpus]

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Both as they were, in the block."""
        with torch.random.fork_rng(self.gpus), torch.autocast(self.kind, *self.autocast):
            torch.set_rng_state(self.random)
            for gpu, state in zip(self.gpus, self.random_gpus, strict=True):
                torch.cuda.set_rng_state(state, gpu)
            yield


def check_second_order(name: str) -> None:
    if name not in SECOND_ORDERS:
        raise ValueError(f"expected second_order to be one of {', '.join(map(repr, SECOND_ORDERS))}; got {name!r}")


def check_function(loss: Any) -> Callable[[MAML], Tensor]:
    if not callable(loss):
        raise TypeError(
            f"expected a function of the clone, since second_order='stepwise' computes the loss twice; got a "
            f"{type(loss).__name__}. Give clone.adapt(lambda clone: cross_entropy(clone(x), y))"
        )
    return loss
