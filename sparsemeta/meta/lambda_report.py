"""A search over Lambda patterns as a table, as data and as a plot."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import mean

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..files import replacing, write_atomically
from .lambda_records import LambdaSearch, PatternRecord


@contextmanager
def pattern_bar(total: int, shown: bool) -> Iterator[Callable[[str, Sequence[float]], None]]:
    """A bar over patterns; gives a function to call with each pattern and its accuracies."""
    columns = TextColumn("Lambda patterns"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[now]}")
    with Progress(*columns, TimeRemainingColumn(), disable=not shown) as bar:
        job = bar.add_task("", total=total, now="")
        yield lambda pattern, percent: bar.update(job, advance=1, now=f"{pattern}: {mean(percent):.1f} %")


def table(search: LambdaSearch) -> Table:
    """A row for each pattern, fastest first; the chosen one in bold, those of the Pareto front with a mark."""
    made = Table(title=f"chosen: {search.rule}", title_justify="left")
    for name in ("pattern", "time", "quartiles", "faster", "accuracy", "against reference", "front"):
        made.add_column(name, justify="left" if name in ("pattern", "front") else "right", no_wrap=True)
    front = search.front
    for record in search.records:
        style = "bold green" if record is search.chosen else None
        made.add_row(*row(search, record), "*" if record in front else "", style=style)
    return made


def row(search: LambdaSearch, record: PatternRecord) -> list[str]:
    """The figures of a record."""
    lower, median, upper = (f"{seconds * 1e3:.2f}" for seconds in (record.lower, record.seconds, record.upper))
    return [
        record.pattern,
        f"{median} ms",
        f"{lower} - {upper}",
        f"{search.speedup(record):.2f}x",
        f"{record.accuracy:.2f} +- {record.interval:.2f} %",
        f"{record.gain:+.2f} +- {record.gain_interval:.2f}",
    ]


def save_json(search: LambdaSearch, path: str | Path) -> None:
    """Write everything a search has found, times in seconds and accuracies in percent, whole or not at all."""
    content = {
        "about": dict(search.about),
        "rule": search.rule,
        "chosen": None if search.chosen is None else search.chosen.pattern,
        "reference": search.reference.pattern,
        "front": [record.pattern for record in search.front],
        "records": [{**asdict(record), "speedup": search.speedup(record)} for record in search.records],
    }
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def plot(search: LambdaSearch, path: str | Path) -> None:
    """Write accuracy over time with the Pareto front to ``path``: .png, .svg or .pdf."""
    from matplotlib.figure import Figure  # here, so that a search does not wait for it

    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.subplots()
    times = [record.seconds * 1e3 for record in search.records]
    accuracies, intervals = ([getattr(r, name) for r in search.records] for name in ("accuracy", "interval"))
    axes.errorbar(times, accuracies, intervals, fmt="o", color="tab:gray", elinewidth=0.5, markersize=4)
    front = search.front
    axes.plot([r.seconds * 1e3 for r in front], [r.accuracy for r in front], "o-", color="tab:blue", label="front")
    if search.chosen is not None:
        axes.plot(
            search.chosen.seconds * 1e3,
            search.chosen.accuracy,
            "*",
            color="tab:green",
            markersize=16,
            label=f"chosen: {search.rule}",
        )  # fmt: skip  one argument a line would be longer
    for record in {r.pattern: r for r in [*front, search.reference]}.values():
        axes.annotate(record.pattern, (record.seconds * 1e3, record.accuracy), (4, 6), textcoords="offset points")
    axes.set(xlabel="time of one adaptation (ms)", ylabel="query accuracy (%), 95 % intervals")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.1)  # room for the names
    axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)
