"""A ticket as a table."""

from __future__ import annotations

import io
from collections.abc import Mapping

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from .pattern import Pattern


def render(patterns: Mapping[str, Pattern]) -> str:
    """See `Ticket.summary`."""
    kept, numel = sum(p.nnz for p in patterns.values()), sum(p.numel for p in patterns.values())
    table = Table(box=SIMPLE, show_footer=True)
    table.add_column("layer", "all")
    table.add_column("shape")
    table.add_column("block")
    table.add_column("kept", f"{kept:,} of {numel:,}", justify="right")
    table.add_column("sparsity", _percent(1 - kept / max(numel, 1)), justify="right")
    for name, p in patterns.items():
        table.add_row(name, _times(p.shape), _times(p.block), f"{p.nnz:,} of {p.numel:,}", _percent(p.sparsity))
    text = io.StringIO()
    Console(file=text, width=1000, markup=False).print(table)  # wide, so that no name is cut
    return "\n".join(line.rstrip() for line in text.getvalue().strip("\n").splitlines())


def _times(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"
