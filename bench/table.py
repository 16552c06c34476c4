"""Results as a table: one row for each way that is not dense PyTorch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich.markup import escape
from rich.table import Table

from .measure import Result, Sample
from .report import shared, varying


def table(results: Sequence[Result]) -> Table:
    """Labels that vary, best dense time, own time, and how the two compare."""
    labels = varying(results)
    made = Table(title=escape(shared(results)), title_justify="left")
    for name in labels:
        made.add_column(name)
    several = any(result.labels.get("tasks", 1) > 1 for result in results)
    compared = ("time", *(["a task"] if several else []), "ratio", "ideal", "efficiency", "spread")
    for name in ("dense", "layout", "by", *compared):
        made.add_column(name, justify="left" if name in ("layout", "by") else "right")
    for result in results:
        head = [_label(name, result.labels[name]) for name in labels]
        head += [milliseconds(result.dense.seconds.median), escape(result.dense.name)]
        for row in _rows(result, several):
            made.add_row(*head, *row)
            head = [""] * len(head)
    return made


def reasons(results: Sequence[Result]) -> list[str]:
    """Why something in the table is wrong: a line for each way."""
    found: dict[str, list[str]] = {}
    for result in results:
        for key, why in result.wrong.items():
            found.setdefault(key, []).append(why)
    return [f"{key} is wrong in {len(why)} of {len(results)} cases, the first: {why[0]}" for key, why in found.items()]


def _label(name: str, value: object) -> str:
    return f"{100 * value:g}%" if name == "sparsity" else escape(str(value))


def _rows(result: Result, each_task: bool) -> Iterator[list[str]]:
    for sample in result.samples:
        if sample.role != "dense":
            yield _compared(result, sample, each_task)
    for key in result.wrong:
        yield [escape(key.partition(": ")[2]), "[red]wrong[/red]"]


def _compared(result: Result, sample: Sample, each_task: bool) -> list[str]:
    ratio = result.ratio(sample)
    seconds = sample.seconds.median
    colour = "green" if ratio > 1 else "red"
    return [
        escape(sample.name),
        milliseconds(seconds),
        *([milliseconds(seconds / result.labels["tasks"])] if each_task else []),
        f"[{colour}]{ratio:.2f}x[/{colour}]",
        f"{result.ideal:.2f}x",
        f"{result.efficiency(sample):.0%}",
        f"{result.dense.seconds.relative:.0%}/{sample.seconds.relative:.0%}",
    ]


def milliseconds(seconds: float) -> str:
    """With three digits that count."""
    digits = max(0, 2 - math.floor(math.log10(seconds * 1e3))) if seconds else 0
    return f"{seconds * 1e3:.{digits}f} ms"
