"""Plots of a ticket and of the search that found it, as SVG text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from ..demo.plots import STYLE, TICKET, kept_fractions, svg
from ..ticket import Ticket

COLUMNS = 3


def kept(ticket: Ticket) -> str:
    """How much each layer keeps."""
    return kept_fractions(
        {n: {"fraction": 1 - p.sparsity, "kept": p.nnz, "numel": p.numel} for n, p in ticket.items()}
    )


def masks(ticket: Ticket) -> str:
    """A picture of each layer: a row for each output unit, a column for each input; black where all taps are kept."""
    with matplotlib.rc_context(STYLE):
        figure, panels = _panels(len(ticket), 3.2)
        for axes, (name, pattern) in zip(panels, ticket.items(), strict=True):
            density = pattern.as_conv() if len(pattern.shape) == 2 else pattern
            picture = density.mask().float().mean((2, 3))
            axes.imshow(picture.numpy(), cmap="gray_r", vmin=0, vmax=1, interpolation="none", aspect="auto")
            axes.set_title(f"{name}\n{100 * (1 - pattern.sparsity):.1f} % kept", fontsize=8)
            axes.set(xticks=[], yticks=[], xlabel=f"{picture.shape[1]} inputs", ylabel=f"{picture.shape[0]} outputs")
        return svg(figure)


def trace(records: Sequence[Mapping[str, Any]]) -> str:
    """Every number that all records of a search have, over their `step` or `round`."""
    numeric = [k for k, v in records[0].items() if all(isinstance(r.get(k), int | float) for r in records)]
    over = next((key for key in ("step", "round") if key in numeric), None)
    shown = [key for key in numeric if key not in ("step", "round")]
    places = [record[over] for record in records] if over else range(1, len(records) + 1)
    with matplotlib.rc_context(STYLE):
        figure, panels = _panels(len(shown), 2.2)
        for axes, key in zip(panels, shown, strict=True):
            axes.plot(places, [record[key] for record in records], color=TICKET, marker="." * (len(records) < 40))
            axes.set(title=key.replace("_", " "), xlabel=over or "record")
            axes.xaxis.get_major_locator().set_params(integer=True)
        return svg(figure)


def _panels(count: int, height: float) -> tuple[Figure, list]:
    """A figure with so many axes. Without pyplot: no display is looked for, and nothing global is left behind."""
    rows = max(1, math.ceil(count / COLUMNS))
    figure = Figure((3 * COLUMNS, height * rows), layout="constrained")
    every = figure.subplots(rows, COLUMNS, squeeze=False).flatten().tolist()
    for axes in every[count:]:
        axes.remove()
    return figure, every[:count]
