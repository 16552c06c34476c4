"""Ticket algebra: overlap, union, intersection, and the controls that a ticket has to beat."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..meta.seeds import seeded
from ..pattern_bits import every_block, keep_blocks
from ..ticket import Ticket, TicketError


@dataclass(frozen=True)
class Overlap:
    """How far two tickets keep the same weights.

    Attributes:
        jaccard: |A and B| / |A or B|; two random tickets of density p have p / (2 - p).
        shared: |A and B| / |A|; two random tickets have p.
        layers: `shared` by the name of the weight.
    """

    jaccard: float
    shared: float
    layers: dict[str, float]


def overlap(a: Ticket, b: Ticket) -> Overlap:
    """Overlap of two tickets of the same weights. Raises `TicketError` if they are not."""
    _check_same(a, b)
    both = {name: int(b[name].mask().flatten()[a[name].index].sum()) for name in a}
    shared, layers = sum(both.values()), {name: count / max(a[name].nnz, 1) for name, count in both.items()}
    return Overlap(shared / max(a.nnz + b.nnz - shared, 1), shared / max(a.nnz, 1), layers)


def union(a: Ticket, b: Ticket) -> Ticket:
    """What either keeps; in blocks where both have the same, else unstructured. Raises `TicketError` as `overlap`."""
    return _combined(a, b, torch.logical_or, "union")


def intersection(a: Ticket, b: Ticket) -> Ticket:
    """What both keep; in blocks where both have the same, else unstructured. Raises `TicketError` as `overlap`."""
    return _combined(a, b, torch.logical_and, "intersection")


def shuffle(ticket: Ticket, seed: int = 0) -> Ticket:
    """As many weights in each layer, at random places (whole blocks): keeps how many, not which."""
    generator = torch.Generator().manual_seed(seed)
    patterns = {}
    for name, pattern in ticket.items():
        everything = every_block(pattern.shape, pattern.block)
        entries = torch.Size(pattern.block).numel()
        kept = torch.randperm(pattern.numel // entries, generator=generator) < pattern.nnz // entries
        patterns[name] = keep_blocks(everything, kept)
    return Ticket(patterns, {**ticket.provenance, "shuffled": seed})


def reinitialise(model: nn.Module, seed: int = 0) -> nn.Module:
    """A copy, dense or sparse, with every parameter drawn anew by its module's `reset_parameters`, from `seed`.

    Raises:
        ValueError: a module with parameters of its own but without `reset_parameters`.
    """
    owners = {n: m for n, m in model.named_modules() if any(p is not None for p in m._parameters.values())}
    if without := [name for name, module in owners.items() if not hasattr(module, "reset_parameters")]:
        raise ValueError(f"expected modules with reset_parameters, got none in {without}; build a new model instead")
    model = copy.deepcopy(model)
    with seeded(2**31 + seed, next(model.parameters()).device):  # seed itself may have drawn the weights we replace
        for name in owners:
            model.get_submodule(name).reset_parameters()
    return model


def _check_same(a: Ticket, b: Ticket) -> None:
    shapes = [{n: p.shape for n, p in ticket.items()} for ticket in (a, b)]
    if shapes[0] != shapes[1]:
        wrong = sorted(n for n in shapes[0].keys() | shapes[1].keys() if shapes[0].get(n) != shapes[1].get(n))
        raise TicketError(f"expected tickets of the same weights, got two that differ in {wrong}; use one model's")


def _combined(a: Ticket, b: Ticket, operation: Callable[[Tensor, Tensor], Tensor], name: str) -> Ticket:
    _check_same(a, b)
    masks = {n: operation(a[n].mask(), b[n].mask()) for n in a}
    blocks = {n: a[n].block if a[n].block == b[n].block else (1, 1) for n in a}
    return Ticket.from_masks(masks, blocks, {"method": name, "of": [a.provenance, b.provenance]})
