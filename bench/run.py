"""A run of the benchmark command: measure every case, print the table, write JSON and plot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn

from . import allocator, machine
from .case import Case
from .measure import Result, WrongResult, measure
from .report import as_json, save_json
from .table import reasons, table
from .timing import Budget

PLOTS = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Settings:
    """How a run measures and what it writes.

    Attributes:
        budget: of each case.
        fresh_memory: leave the allocator as it is (`bench.allocator`).
        json_file, plot_file: where to write, if at all.

    Raises:
        ValueError: a file that cannot be written: its folder is missing, or its kind is no plot's.
    """

    budget: Budget
    fresh_memory: bool = False
    json_file: Path | None = None
    plot_file: Path | None = None

    def __post_init__(self) -> None:
        for file in filter(None, (self.json_file, self.plot_file)):
            if not file.absolute().parent.is_dir():
                raise ValueError(f"expected an existing folder for {file.name}, got {file.parent}; make it first")
        if self.plot_file and self.plot_file.suffix not in PLOTS:
            raise ValueError(f"expected a plot ending in {', '.join(PLOTS)}, got {self.plot_file.name}")


def run(cases: Sequence[Case], settings: Settings) -> None:
    """Measure the cases and report. The JSON is written anew after each case, so that a run cut short leaves it.

    Raises:
        WrongResult: after the report, if a sparse kernel was wrong.
    """
    kept = not settings.fresh_memory and allocator.keep_freed_memory()
    known, results = machine.facts(), []
    told = {**asdict(settings.budget), "freed_memory_kept": kept}
    for case in _with_progress(cases):
        results.append(measure(case, settings.budget))
        if settings.json_file:
            save_json(settings.json_file, as_json(results, known, told))
    _print(results, known, kept)
    if settings.plot_file:
        from .plot import plot  # here, so that a table does not wait for matplotlib

        plot(results, settings.plot_file)
    if wrong := [reason for reason in reasons(results) if reason.startswith("sparse")]:
        raise WrongResult(f"expected the exact result of every sparse kernel, got: {'; '.join(wrong)}")


def _with_progress(cases: Sequence[Case]) -> Iterator[Case]:
    console = Console(stderr=True)
    # Drawn between the cases only: a thread that draws would disturb what is timed.
    options = {"auto_refresh": False, "transient": True, "disable": not console.is_terminal}
    with Progress(TextColumn("{task.description}"), MofNCompleteColumn(), console=console, **options) as bar:
        job = bar.add_task("", total=len(cases))
        for case in cases:
            bar.update(job, description=" ".join(map(str, case.labels.values())), refresh=True)
            yield case
            bar.update(job, advance=1, refresh=True)


def _print(results: Sequence[Result], known: dict[str, Any], kept: bool) -> None:
    console = Console()
    if not console.is_terminal:  # a file has room for whole rows
        console.width = 1000
    console.print(table(results))
    memory = "kept by the allocator" if kept else "given back to the system"
    load = max((r.load for r in results if r.load is not None), default=0.0)
    busy = load > 1 + max(r.labels["threads"] for r in results)
    for line in (
        *reasons(results),
        "ratio = best dense / time, of medians; ideal = FLOP ratio; spread = quartiles of dense / of this way",
        f"{known['processor']}, {known['cores']} cores, {known['isa']} kernels, torch {known['torch']}",
        f"freed memory {memory}, for dense and sparse alike",
        *([f"other programs were busy (load {load:.1f}): measure again without them"] if busy else []),
    ):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
