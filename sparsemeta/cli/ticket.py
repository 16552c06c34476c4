"""`sparsemeta ticket`: look into ticket files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _describe() -> None:
    """Look into ticket files."""


@app.command()
def show(
    file: Annotated[Path, typer.Argument(help="A ticket file, as Ticket.save writes it.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print what a ticket keeps, layer by layer, and where it comes from."""
    from sparsemeta.ticket import Ticket  # here, so that `sparsemeta --help` does not wait for torch

    ticket = Ticket.load(file)
    if as_json:
        typer.echo(json.dumps(_facts(ticket), indent=2))
        return
    typer.echo(ticket.summary())
    for key, value in ticket.provenance.items():
        typer.echo(f"{key}: {value}")


def _facts(ticket) -> dict:
    layers = {
        name: {"shape": p.shape, "block": p.block, "kept": p.nnz, "numel": p.numel, "sparsity": p.sparsity}
        for name, p in ticket.items()
    }
    total = {"kept": ticket.nnz, "numel": ticket.numel, "sparsity": ticket.sparsity}
    return {**total, "layers": layers, "provenance": ticket.provenance}
