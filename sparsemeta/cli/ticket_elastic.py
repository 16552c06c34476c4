"""`sparsemeta ticket stretch` and `squeeze`: tickets, and weights, for other depths."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

File = Annotated[Path, typer.Argument(help="A ticket file, as Ticket.save writes it.")]
Out = Annotated[Path, typer.Argument(help="Ticket file to write.")]
To = Annotated[str | None, typer.Option(help="Blocks of each stage afterwards: 9, or 3,4,6,3.")]
Written = Annotated[str | None, typer.Option(help="Which block becomes which, instead: '0:0;1:1,2', stages by '|'.")]
Units = Annotated[str | None, typer.Option(help="How names tell the block: 'stages.{stage}.{block}.{rest}', or regex.")]
Weights = Annotated[Path | None, typer.Option(help="Safetensors of a state dict to change in the same way.")]
WeightsOut = Annotated[Path | None, typer.Option(help="Safetensors file for those.")]


def stretch(
    file: File, out: Out, to: To = None, mapping: Written = None,
    order: Annotated[str, typer.Option(help="append (B0 B1 B2 B1 B2) or interpolate (B0 B1 B1 B2 B2).")] = "append",
    units: Units = None, weights: Weights = None, weights_out: WeightsOut = None,
) -> None:  # fmt: skip  one name a line would be longer than the rest
    """Write a ticket for a deeper network of the same family: blocks are repeated (E-LTH)."""
    _change("stretch", file, out, to, mapping, order, units, weights, weights_out)


def squeeze(
    file: File, out: Out, to: To = None, mapping: Written = None,
    order: Annotated[str, typer.Option(help="Blocks to drop: consecutive or interleaved.")] = "consecutive",
    units: Units = None, weights: Weights = None, weights_out: WeightsOut = None,
) -> None:  # fmt: skip  one name a line would be longer than the rest
    """Write a ticket for a shallower network of the same family: blocks are dropped (E-LTH)."""
    _change("squeeze", file, out, to, mapping, order, units, weights, weights_out)


def _change(
    what: str, file: Path, out: Path, to: str | None, mapping: str | None, order: str, units: str | None,
    weights: Path | None, weights_out: Path | None,
) -> None:  # fmt: skip  one name a line would be longer than the rest
    from sparsemeta import pruning  # here, so that `sparsemeta --help` does not wait for torch
    from sparsemeta.cli.ticket_tensors import read_tensors, write_tensors
    from sparsemeta.ticket import Ticket

    if (weights is None) != (weights_out is None):
        raise ValueError(f"expected --weights and --weights-out together, got {weights} and {weights_out}; give both")
    how = {"to": _sizes(to), "mapping": mapping, "order": order, "units": units}
    change = getattr(pruning, what)
    before = Ticket.load(file)
    after = change(before, **how)
    tensors = change(read_tensors(weights), **how) if weights else None  # before anything is written
    after.save(out)
    typer.echo(f"wrote {out}: {before.sparsity:.4f} -> {after.sparsity:.4f} sparsity, {after!r}")
    if tensors is not None:
        write_tensors(weights_out, tensors, after.provenance)
        typer.echo(f"wrote {weights_out}: {len(tensors)} tensors")


def _sizes(text: str | None) -> int | list[int] | None:
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.strip().isdigit() for part in parts):
        raise ValueError(f"expected --to as a number of blocks, 9, or one for each stage, 3,4,6,3; got {text!r}")
    sizes = [int(part) for part in parts]
    return sizes[0] if len(sizes) == 1 else sizes
