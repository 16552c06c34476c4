"""Adaptation in which the layers that a Lambda pattern holds still cost no gradients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from .lambda_layers import LayerRule, pattern_layers
from .lambda_pattern import LambdaPattern
from .lambda_prefix import PrefixCache, repeatable
from .maml import MAML


class LambdaAdaptation:
    """The inner loop of a learner under a Lambda pattern (Khabarlak 2022, arXiv 2206.05930).

    The result is that of the learner with rates of 0 in the layers that do not move; what these would have cost is left
    out. With f the first layer that moves in a step, no input gradient is computed in f or below and no weight gradient
    of a layer that does not move. Layers before f run without a graph, unless the learner's meta-gradient is exact:
    that one leads through them too. As long as nothing before f has moved, they run once for all steps.

    ```python
    adaptation = LambdaAdaptation(MAML(model, lr=0.4), LambdaPattern("00011"))
    clone = adaptation(support_x, support_y, steps=5)
    cross_entropy(clone(query_x), query_y).backward()      # the meta-gradient, in every layer
    ```

    Args:
        learner: its rates, order of the meta-gradient and batch-norm mode hold. An exact meta-gradient is unrolled.
        pattern: which layers move in which step.
        layers: what the bits stand for, see ``pattern_layers``.
        prefix_cache: run the layers before the first that moves once, where they give the same each time: not with
            active dropout, nor with batch norms of each step.

    Raises:
        ValueError: a pattern with another number of bits than there are layers, a learner that moves no layer; what
            ``pattern_layers`` raises.
    """

    def __init__(
        self, learner: MAML, pattern: LambdaPattern, layers: LayerRule | None = None, prefix_cache: bool = True
    ):
        self.learner, self.pattern, self.prefix_cache = learner, pattern, prefix_cache
        self.layers = pattern_layers(learner.module, layers)
        pattern.check(len(self.layers), len(pattern.rows))
        own = learner.start().keys()
        self._movable = {i for i, layer in enumerate(self.layers) if own & set(layer.parameters)}
        if not self._movable:
            raise ValueError(f"expected a learner that moves parameters of its model; got one that moves {sorted(own)}")
        self._modules = [[learner.module.get_submodule(name) for name in layer.modules] for layer in self.layers]

    def __call__(self, support_x: Tensor, support_y: Tensor, steps: int) -> MAML:
        """A clone after ``steps`` inner steps on the cross-entropy of the support set.

        Args:
            support_x: ``[N, ...]``.
            support_y: ``[N]``, classes from 0.
            steps: as many as the pattern has rows, if it has more than one.

        Raises:
            ValueError: another number of steps than the pattern has.
        """
        self.pattern.check(len(self.layers), steps)
        clone = self.learner.clone()
        clone.second_order = "unrolled"  # a step taken again would not find the prefix nor the operands of its own
        cached = self.prefix_cache and repeatable(clone.module, clone.bn_mode)
        prefix = PrefixCache(self._modules if cached else [])
        for step in range(steps):
            if moving := [layer for layer in self.pattern.active(step) if layer in self._movable]:
                self._step(clone, support_x, support_y, moving, prefix)
            else:
                clone.step += 1
        return clone

    def as_rates(self) -> MAML | None:
        """A learner with rates of 0 where nothing moves, for an engine without patterns: the same result, no saving.

        None where rates do not say it all: a row for each step, batch norms of each step, another algorithm than MAML.
        """
        learner = self.learner
        if len(self.pattern.rows) > 1 or learner.norms is not None or type(learner) is not MAML:
            return None
        names, moving = list(learner.start()), self._names(self.pattern.active(0))
        own = learner.rates(names)
        rates = own if isinstance(own, list) else [own] * len(names)
        still = {name: rate if name in moving else 0.0 for name, rate in zip(names, rates, strict=True)}
        return MAML(learner.module, still, learner.first_order, learner.bn_mode)

    def _step(self, clone: MAML, x: Tensor, y: Tensor, moving: list[int], prefix: PrefixCache) -> None:
        weights, names, first = clone.weights, self._names(moving), moving[0]
        unused = self._names(range(prefix.ready(first)))  # fewer weights to hand to the model take less time
        used = {name: weight for name, weight in weights.items() if name not in unused}
        clone.weights = operands = operands_of_step(used, names, clone.first_order)
        alone = prefix.last is not None and prefix.ready(first) == len(self.layers) - 1
        logits = self._last(operands, prefix.last) if alone else prefix.run(clone, x, first)
        loss = F.cross_entropy(logits, y)
        clone.weights = {name: operands[name] for name in used if name in names}
        clone.adapt(loss)
        clone.weights = {**weights, **clone.weights}
        prefix.move(first)

    def _last(self, operands: Mapping[str, Tensor], given: tuple) -> Tensor:
        """The model's output where all but its last layer, one module, gave what they gave before."""
        start = len(self.layers[-1].modules[0]) + 1
        own = {name[start:]: weight for name, weight in operands.items()}
        return functional_call(self._modules[-1][0], own, given)

    def _names(self, layers: Iterable[int]) -> set[str]:
        return {name for layer in layers for name in self.layers[layer].parameters}


def operands_of_step(weights: Mapping[str, Tensor], moving: set[str], first_order: bool) -> dict[str, Tensor]:
    """``weights`` such that a gradient against those in ``moving`` is partial, and computes no other.

    An exact meta-gradient needs the others in the graph too. There each is a view, since what moved in earlier steps
    depends on the weights, but not on the views of this step.
    """
    if first_order:
        return {name: weight if name in moving else weight.detach() for name, weight in weights.items()}
    return {name: weight.view_as(weight) for name, weight in weights.items()}
