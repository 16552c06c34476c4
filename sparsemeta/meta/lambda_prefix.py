"""The layers before the first that moves, run once for all inner steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from .batch_norm import attributes_set


class PrefixCache:
    """Outputs, on one support set, of the layers that no inner step has moved.

    Exact as long as a layer gives the same for the same input and weights: ``repeatable`` says whether.

    Args:
        layers: the modules of each layer, in the order in which they run.

    Attributes:
        last: what the last layer was given when all before it was kept, if that layer is one module, runs once and
            gives what the model gives; otherwise None.
    """

    def __init__(self, layers: Sequence[Sequence[nn.Module]]):
        self.layers, self.unmoved = layers, len(layers)
        self.kept: dict[nn.Module, Any] = {}
        self.last: tuple | None = None
        self._end: Any = None

    def ready(self, first: int) -> int:
        """How many layers before ``first`` need not run any more."""
        return min(first, self.unmoved) if all(m in self.kept for m in self._before(first)) else 0

    def run(self, model: nn.Module, x: Tensor, first: int) -> Tensor:
        """``model(x)``, in which the layers before ``first`` give what they gave before, or keep what they give.

        Raises:
            RuntimeError: the model does not run its layers one after another and each once.
        """
        with self._running(first):
            y = model(x)
        self.last = self.last if self._end is y else None
        return y

    @contextmanager
    def _running(self, first: int) -> Iterator[None]:
        prefix = self._before(first)
        filling = any(m not in self.kept for m in prefix)
        after = [layer[0] for layer in self.layers[first:]] if filling else []
        ran: set[nn.Module] = set()

        def once(module: nn.Module, forward: Any, *args: Any, **kwargs: Any) -> Any:
            check_order(module not in ran)
            ran.add(module)
            if module not in self.kept:
                self.kept[module] = forward(*args, **kwargs)
            return self.kept[module]

        def late(module: nn.Module, forward: Any, *args: Any, **kwargs: Any) -> Any:
            check_order(len(ran) == len(prefix))
            whole = self._end is None and not kwargs and [module] == list(self.layers[-1])
            self._end = forward(*args, **kwargs)
            self.last = args if whole else None
            return self._end

        with (
            attributes_set(prefix, lambda m: {"forward": partial(once, m, m.forward)}),
            attributes_set(after, lambda m: {"forward": partial(late, m, m.forward)}),
        ):
            yield

    def move(self, first: int) -> None:
        """Forget what depends on layer ``first``, which moves now."""
        self.unmoved = min(first, self.unmoved)
        self.kept = {module: self.kept[module] for module in self._before(first)}

    def _before(self, first: int) -> list[nn.Module]:
        return [module for layer in self.layers[: min(first, self.unmoved)] for module in layer]


def check_order(holds: bool) -> None:
    """Raise ``RuntimeError`` unless the layers ran in order."""
    if not holds:
        raise RuntimeError(
            "expected a model that runs its layers one after another, each once, in the order of the pattern; it does "
            "not. Give layers=... in the order in which they run, or prefix_cache=False"
        )


def repeatable(model: nn.Module, bn_mode: str) -> bool:
    """Whether a second pass gives what the first gave: no active dropout, no batch norm that counts passes or steps."""
    dropout = any(isinstance(m, _DropoutNd) and m.training and m.p > 0 for m in model.modules())
    return not dropout and (bn_mode != "per_step" or not any(isinstance(m, _BatchNorm) for m in model.modules()))
