"""`sparsemeta ticket export`: tickets for other programs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from torch import Tensor

    from sparsemeta.ticket import Ticket

FORMATS = ("masks", "prune", "dense")
FORMATS_HELP = "masks; with WEIGHTS: prune (weight_orig and weight_mask), dense (zeros where pruned)."


def export(
    file: Annotated[Path, typer.Argument(help="A ticket file, as Ticket.save writes it.")],
    out: Annotated[Path, typer.Argument(help="Safetensors file to write.")],
    form: Annotated[str, typer.Option("--format", help=FORMATS_HELP)] = "masks",
    weights: Annotated[Path | None, typer.Option(help="Safetensors of the dense state dict.")] = None,
) -> None:
    """Write a ticket as plain masks, or a state dict with it, as safetensors."""
    from sparsemeta.cli.ticket_tensors import read_tensors, write_tensors
    from sparsemeta.ticket import Ticket  # here, so that `sparsemeta --help` does not wait for torch

    if form not in FORMATS:
        raise ValueError(f"expected --format to be one of {', '.join(FORMATS)}, got {form!r}")
    if (form == "masks") != (weights is None):
        raise ValueError(f"expected --weights for the formats prune and dense, and only there, got {weights}")
    ticket = Ticket.load(file)
    tensors = ticket.masks() if form == "masks" else applied(ticket, read_tensors(weights), form)
    write_tensors(out, tensors, ticket.provenance)
    typer.echo(f"wrote {out}: {len(tensors)} tensors, {ticket!r}")


def applied(ticket: Ticket, state: Mapping[str, Tensor], form: str) -> dict[str, Tensor]:
    """The state dict with the ticket in it.

    Args:
        state: of the dense model.
        form: `"prune"`, as the state dict of a model pruned by `torch.nn.utils.prune` (`weight_orig`, `weight_mask`);
            `"dense"`, as that of the dense model, with zeros where pruned.

    Raises:
        TicketError: a weight that is missing or of another shape.
    """
    _check(ticket, state)
    made: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name not in ticket:
            made[name] = tensor
        elif form == "dense":
            made[name] = tensor * ticket[name].mask()
        else:
            made |= {f"{name}_orig": tensor, f"{name}_mask": ticket[name].mask().to(tensor.dtype)}
    return made


def _check(ticket: Ticket, state: Mapping[str, Tensor]) -> None:
    from sparsemeta.ticket import TicketError

    wrong = [name for name in ticket if name not in state or tuple(state[name].shape) != ticket[name].shape]
    if wrong:
        raise TicketError(
            f"expected weights of the ticket's names and shapes, got others, or none, for {wrong[:5]}; "
            f"use the dense state dict of the ticket's own model"
        )
