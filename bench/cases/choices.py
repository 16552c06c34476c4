"""What the cases of every kind have in common to choose from, checked before anything is made."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from torch import nn

import sparsemeta as sm
from sparsemeta import backends

from .structures import block_of

Run = TypeVar("Run", bound=Callable[[], object])


def tuned(make: Callable[[str], Run], backend: str) -> Run:
    """`make(backend)`, after whatever `"auto"` has to measure for it: no round of the timing shall wait for that."""
    if backend == "auto":
        backends.tune(make(backend))  # one of its own: a meta-step moves its weights
    return make(backend)


def drawn_ticket(model: nn.Module, sparsity: float, structure: str) -> sm.Ticket:
    """By magnitude in each layer; of fresh weights, so a random one.

    Blocks only where they divide a convolution, and not in the first: with whole kernels of one or three channels most
    of its outputs would be constant, and whether ReLU passes a normalised constant is a matter of rounding.
    """
    weights = {name: p.shape for name, p in model.named_parameters() if p.dim() == 4 and p.shape[1] > 3}
    blocks = {name: block_of(structure, shape) for name, shape in weights.items()}
    return sm.Ticket.magnitude(model, sparsity, "layer", {name: block for name, block in blocks.items() if block})


def check_names(what: str, names: Sequence[str], known: Collection[str]) -> None:
    """Raise `ValueError` unless all are known."""
    if wrong := [name for name in names if name not in known]:
        raise ValueError(f"expected each {what} to be one of {', '.join(known)}; got {', '.join(wrong)}")


def check_choices(sparsities: Sequence[float], threads: Sequence[int], names: Sequence[str]) -> None:
    """Raise `ValueError` for a sparsity or a number of threads out of range, or a backend that is not here."""
    if wrong := [s for s in sparsities if not 0 <= s < 1]:
        raise ValueError(f"expected sparsities from 0 to below 1, got {wrong}; 0.8 prunes 80 %")
    if wrong := [n for n in threads if n < 1]:
        raise ValueError(f"expected at least one thread, got {wrong}")
    for name in names:
        backends.check_name(name)
        if reasons := backends.available().get(name):
            raise ValueError(f"expected a backend that can run here, got {name}: {'; '.join(reasons)}")
