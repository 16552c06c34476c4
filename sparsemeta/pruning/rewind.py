"""Rewinding: the states of a training run that a ticket may go back to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..meta.checkpoint import load_checkpoint, save_checkpoint
from ..nn import sparsify
from ..ticket import Ticket


@dataclass(frozen=True)
class Snapshot:
    """A training run at one step.

    Attributes:
        step: steps made; a run that goes on from here makes step `step + 1` next, with that step's learning rate.
        model: its state dict.
        optimizer: the optimiser's state dict; None for a fresh one.
        extra: whatever else the run needs to go on: the sampler's place, random numbers.
    """

    step: int
    model: Mapping[str, Any]
    optimizer: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def dense(self, model: nn.Module) -> nn.Module:
        """Load the weights into `model` in place, and return it."""
        model.load_state_dict(dict(self.model))
        return model

    def sparse(self, model: nn.Module, ticket: Ticket) -> tuple[nn.Module, Snapshot]:
        """This dense state with only the ticket's weights.

        Args:
            model: dense, of this state's architecture; takes its weights, in place.

        Returns:
            A sparse model, and the snapshot from which its training goes on: the optimiser's moments of the kept
            weights, at the same step.
        """
        names = [name for name, parameter in self.dense(model).named_parameters() if parameter.requires_grad]
        sparse = sparsify(model, ticket)
        optimizer = None if self.optimizer is None else compressed(self.optimizer, names, ticket)
        return sparse, Snapshot(self.step, sparse.state_dict(), optimizer, self.extra)


def compressed(optimizer: Mapping[str, Any], names: Sequence[str], ticket: Ticket) -> dict[str, Any]:
    """State dict of an optimiser over the parameters `names` of a dense model, for those of the sparse model.

    Parameters keep their order when a model becomes sparse, so only the moments change: to the kept entries.
    """

    def kept(index: int, value: Any) -> Any:
        name = names[index]
        moment = isinstance(value, Tensor) and name in ticket and value.shape == ticket[name].shape
        return ticket[name].compress(value) if moment else value

    state = {i: {key: kept(i, value) for key, value in held.items()} for i, held in optimizer["state"].items()}
    return {**optimizer, "state": state}


class RewindStore:
    """Snapshots by name in a folder, `"theta_0"` and `"theta_r"`; each is a safetensors file, written atomically."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def save(self, name: str, snapshot: Snapshot) -> None:
        """Keep a snapshot."""
        save_checkpoint(self._path(name), vars(snapshot))

    def load(self, name: str) -> Snapshot:
        """The snapshot of that name, tensors on the CPU. Raises `CheckpointError` if there is none or a damaged one."""
        return Snapshot(**load_checkpoint(self._path(name)))

    def __contains__(self, name: str) -> bool:
        return self._path(name).exists()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"
