"""The comparison as rows of text: the same in the terminal and in the report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from sparsemeta.demo.timing import DENSE

Row = tuple[str, str, str]
HEADER: Row = ("", "dense", "ticket")


def rows(figures: dict[str, Any]) -> Iterator[Row]:
    """What is compared, for dense, for the ticket."""
    ticket, accuracy, speed = figures["ticket"], figures["accuracy"], figures["speed"]
    steps = figures["configuration"]["steps"]
    yield "convolution weights", f"{ticket['numel']:,}", f"{ticket['kept']:,} ({100 - 100 * ticket['sparsity']:.1f} %)"
    yield "meta-steps", f"{steps:,}", f"{steps:,} (to {figures['configuration']['rewind']} as dense)"
    tasks = f"accuracy, {accuracy['dense']['tasks']} test tasks"
    yield tasks, *(f"{a['accuracy']:.2f} ± {a['interval']:.2f} %" for a in (accuracy["dense"], accuracy["ticket"]))
    yield "ticket - dense", "", f"{accuracy['difference']:+.2f} points"
    for name, seconds in speed["seconds_per_meta_step"].items():
        text = f"{1000 * seconds['median']:.1f} ms" + (" (best)" if name == speed["best_dense"] else "")
        yield (f"meta-step, {name}", text, "") if name in DENSE else (f"meta-step, {name}", "", text)
    yield "best dense / sparse", "", f"{speed['ratio']:.2f}"
    yield "best dense / sparse, 0 % pruned", "", f"{speed['ratio_of_fusing_alone']:.2f}"
    yield "FLOP ratio, the ideal", "", f"{speed['flop_ratio']:.2f}"
    yield "efficiency", "", f"{100 * speed['efficiency']:.0f} %"


def as_rich(figures: dict[str, Any]) -> Table:
    """For the terminal."""
    table = Table(*HEADER)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows(figures):
        table.add_row(*row)
    return table


def headline(figures: dict[str, Any]) -> str:
    """The result in one line."""
    accuracy, ratio = figures["accuracy"], figures["speed"]["ratio"]
    pace = f"{ratio:.2f}x faster" if ratio >= 1 else f"{1 / ratio:.2f}x slower"
    scores = [accuracy[name]["accuracy"] for name in ("ticket", "dense")]
    kept = 100 - 100 * figures["ticket"]["sparsity"]
    return f"With {kept:.0f} % of the weights: meta-step {pace}, accuracy {scores[0]:.1f} % against {scores[1]:.1f} %"
