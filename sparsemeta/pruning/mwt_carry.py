"""From one pattern to a smaller one in the middle of training: through the dense state, with zeros where pruned."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from ..nn import densify
from ..ticket import Ticket
from .cost import meta_passes
from .rewind import Snapshot
from .training import MetaRun, TrainingRun


def densified(snapshot: Snapshot, model: nn.Module, ticket: Ticket | None) -> Snapshot:
    """The dense state of a sparse run: the inverse of `Snapshot.sparse`, which then takes any ticket that is smaller.

    Args:
        snapshot: of the run; its optimiser's moments are expanded as the weights are.
        model: sparse, in the state of `snapshot`.
        ticket: of `model`; None where it is dense, and the snapshot stays as it is.
    """
    if ticket is None:
        return snapshot
    dense = densify(model)
    names = [name for name, parameter in dense.named_parameters() if parameter.requires_grad]
    return replace(snapshot, model=dense.state_dict(), optimizer=expanded(snapshot.optimizer, names, ticket))


def expanded(optimizer: Mapping[str, Any], names: Sequence[str], ticket: Ticket) -> dict[str, Any]:
    """State dict of an optimiser over the parameters `names` of a dense model, from that of the sparse one."""

    def dense(index: int, value: Any) -> Any:
        pattern = ticket.get(names[index])
        moment = isinstance(value, Tensor) and pattern is not None and value.shape == (pattern.nnz,)
        return pattern.expand(value) if moment else value

    state = {i: {key: dense(i, value) for key, value in held.items()} for i, held in optimizer["state"].items()}
    return {**optimizer, "state": state}


def first_order(run: TrainingRun, start: Snapshot) -> tuple[TrainingRun, Snapshot]:
    """The run with meta-gradients of first order, and a state of it from which that goes on; others as they are."""
    if not isinstance(run, MetaRun):
        return run, start
    light = copy.copy(run)
    light.config = replace(run.config, first_order=True)
    light.passes = meta_passes(light.config)
    if "config" not in start.extra:  # no step has been made
        return light, start
    config = {**start.extra["config"], "first_order": True}
    return light, replace(start, extra={**start.extra, "config": config})
