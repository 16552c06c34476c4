"""One round of adaptation-aware pruning: every layer loses some weights by the surgeon, one layer after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..nn import sparsify
from ..nn.base import SparseLayer
from ..ticket import Ticket
from .probe import Probe
from .scores import Weights, score
from .scores_obs import MAX_ROWS
from .surgeon import ORDERS, UPDATES, Surgeon
from .surgeon_factors import layer_factors
from .weights import prunable_layers

IMPORTANCES = ("adapted", "unadapted", "magnitude")


@dataclass(frozen=True)
class Operation:
    """How the layers of a round are operated on.

    Attributes:
        importance: `"adapted"`, by the surgeon on the network after adaptation: ANP; `"unadapted"`, by the same surgeon
            on the network as it is; `"magnitude"`, by w^2, and nothing makes up for what goes. The latter two are
            baselines.
        tasks: of each layer's Hessian, each with its support set.
        stride: of the patches of a convolution.
        order: `"aligned"` or `"published"`, see `Surgeon`.
        max_rows: above that many rows a Hessian is taken as diagonal, see `layer_factors`.
        fisher: weight each unit's scores by what the query loss makes of its output, see `layer_factors`: not in the
            paper. `"magnitude"` has none.
        update: of the weights that stay, `"published"` or `"exact"`, see `Surgeon`; the latter is not in the paper.
        damping: of the mean of a Hessian's diagonal, is added to it, beside the paper's 1e-6. Hessians of few tasks
            hold for other tasks better with some: 0.1.

    Raises:
        ValueError: a value out of range.
    """

    importance: str = "adapted"
    tasks: int = 20
    stride: int = 5
    order: str = "aligned"
    max_rows: int = MAX_ROWS
    fisher: bool = False
    update: str = "published"
    damping: float = 0.0

    def __post_init__(self) -> None:
        counts = all(isinstance(n, int) and n >= 1 for n in (self.tasks, self.stride, self.max_rows))
        known = self.importance in IMPORTANCES and self.order in ORDERS and self.update in UPDATES
        if not (known and counts and isinstance(self.fisher, bool) and self.damping >= 0):
            raise ValueError(
                f"expected importance in {IMPORTANCES}, order in {ORDERS}, update in {UPDATES}, fisher true or false, "
                f"damping >= 0, and tasks, stride and max_rows to be whole numbers of at least 1; got {self}"
            )

    def surgeon(self, network: nn.Module, layer: nn.Module, probe: Probe) -> Surgeon:
        """The surgeon of a `layer` of `network`."""
        adapted = self.importance == "adapted"
        hessian, fisher = layer_factors(network, layer, probe, adapted, self.stride, self.max_rows, self.fisher)
        bias = layer.bias is not None
        return Surgeon.of_factors(hessian, bias, fisher, self.damping, self.order, self.update)


@torch.no_grad()
def prune_layers_(
    model: nn.Module, masks: Mapping[str, Tensor], counts: Mapping[str, int], probe: Callable[[], Probe],
    operation: Operation,
) -> dict[str, Tensor]:
    """Prune `counts` more weights of each layer, in the order of `masks`.

    A layer's Hessian is taken in the network whose layers before it have been pruned. The masks hold in all its steps.

    Args:
        model: dense, with zeros where `masks` prune; its weights and biases are updated in place.
        masks: bool, `True` where kept.
        probe: gives new tasks for each layer.

    Returns:
        The new masks.
    """
    masks = dict(masks)
    for name in masks:
        layer = model.get_submodule(name.rpartition(".")[0])
        if operation.importance == "magnitude":
            surgeon = Surgeon(layer.weight.new_ones(1, 1, dtype=torch.float64))
        else:
            network = sparsify(model, Ticket.from_masks({n: m for n, m in masks.items() if not m.all()}))
            with torch.enable_grad():
                surgeon = operation.surgeon(network, network.get_submodule(name.rpartition(".")[0]), probe())
        weight, bias, masks[name] = surgeon.prune(layer.weight, layer.bias, masks[name], counts[name])
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return masks


@score("anp", needs_probe=True)
def anp_score(
    model: nn.Module, weights: Weights, probe: Probe, stride: int = 5, order: str = "aligned",
    max_rows: int = MAX_ROWS, fisher: bool = False, damping: float = 0.0,
) -> dict[str, Tensor]:
    """w^2 / ([H^-1]_qq + 1e-5) with the Hessian of the layer's inputs after adaptation (Gao et al., CIKM 2021).

    For a probe of tasks, `Probe.meta`; options as in `Operation`. The scores of one layer compare, not those of two:
    use it with `distribution="layer"`.
    """
    operation = Operation(stride=stride, order=order, max_rows=max_rows, fisher=fisher, damping=damping)
    layers, scores = prunable_layers(model), {}
    for name in weights:
        surgeon, layer = operation.surgeon(model, layers[name], probe), layers[name]
        scores[name] = surgeon.scores(layer.weight)
        scores[name] = layer.pattern.compress(scores[name]) if isinstance(layer, SparseLayer) else scores[name]
    return scores
