"""`sparsemeta ticket`: look into ticket files, compare them, and make others of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sparsemeta.cli import ticket_elastic, ticket_experiment, ticket_export

app = typer.Typer(no_args_is_help=True)
app.command()(ticket_elastic.stretch)
app.command()(ticket_elastic.squeeze)
app.command()(ticket_export.export)
app.command()(ticket_experiment.experiment)

File = Annotated[Path, typer.Argument(help="A ticket file, as Ticket.save writes it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.callback()
def _describe() -> None:
    """Look into ticket files, compare them, and make others of them."""


@app.command()
def show(
    file: File,
    as_json: AsJson = False,
    plots: Annotated[Path | None, typer.Option(help="Folder for kept.svg and masks.svg.")] = None,
) -> None:
    """Print what a ticket keeps, layer by layer, and where it comes from."""
    from sparsemeta.ticket import Ticket  # here, so that `sparsemeta --help` does not wait for torch

    ticket = Ticket.load(file)
    written = _plotted(ticket, plots) if plots else []
    if as_json:
        typer.echo(json.dumps(_facts(ticket), indent=2))
        return
    typer.echo(ticket.summary())
    for key, value in ticket.provenance.items():
        typer.echo(f"{key}: {value}")
    for path in written:
        typer.echo(f"wrote {path}")


@app.command()
def compare(a: File, b: File, as_json: AsJson = False) -> None:
    """Print how far two tickets of the same weights keep the same ones, layer by layer."""
    from sparsemeta.pruning import overlap
    from sparsemeta.ticket import Ticket

    first, second = Ticket.load(a), Ticket.load(b)
    found = overlap(first, second)
    chance = second.nnz / max(second.numel, 1)
    if as_json:
        typer.echo(json.dumps({**vars(found), "shared_by_chance": chance}, indent=2))
        return
    width = max(map(len, found.layers), default=0)
    for name, shared in found.layers.items():
        other = second[name].nnz / max(second[name].numel, 1)
        typer.echo(f"{name:{width}}  {100 * shared:6.2f} % of A's weights are in B ({100 * other:.2f} % by chance)")
    typer.echo(f"all: {100 * found.shared:.2f} % ({100 * chance:.2f} % by chance), Jaccard {found.jaccard:.4f}")


@app.command()
def shuffle(
    file: File,
    out: Annotated[Path, typer.Argument(help="Ticket file to write.")],
    seed: Annotated[int, typer.Option(help="Of the random places.")] = 0,
) -> None:
    """Write a ticket of as many weights in each layer, at random places: the control of a search."""
    from sparsemeta.pruning import shuffle as shuffled
    from sparsemeta.ticket import Ticket

    ticket = shuffled(Ticket.load(file), seed)
    ticket.save(out)
    typer.echo(f"wrote {out}: {ticket!r}")


def _plotted(ticket, folder: Path) -> list[Path]:
    from sparsemeta.files import write_atomically
    from sparsemeta.pruning import plots

    folder.mkdir(parents=True, exist_ok=True)
    pictures = {folder / f"{plot.__name__}.svg": plot(ticket) for plot in (plots.kept, plots.masks)}
    for path, svg in pictures.items():
        write_atomically(path, svg.encode())
    return list(pictures)


def _facts(ticket) -> dict:
    layers = {
        name: {"shape": p.shape, "block": p.block, "kept": p.nnz, "numel": p.numel, "sparsity": p.sparsity}
        for name, p in ticket.items()
    }
    total = {"kept": ticket.nnz, "numel": ticket.numel, "sparsity": ticket.sparsity}
    return {**total, "layers": layers, "provenance": ticket.provenance}
