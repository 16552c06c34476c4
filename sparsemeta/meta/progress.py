"""The progress bar of a training run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .records import StepRecord, ValidationRecord


@contextmanager
def step_bar(
    total: int, done: int, shown: bool
) -> Iterator[Callable[[StepRecord, ValidationRecord | None], None]]:
    """A bar over ``total`` meta-steps of which ``done`` are behind; gives a function to call after each step.

    It takes the step and the best validation so far, and shows rate, loss, accuracy and remaining time.
    """
    columns = TextColumn("meta-training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[now]}")
    with Progress(*columns, TimeRemainingColumn(), disable=not shown) as bar:
        job = bar.add_task("", total=total, completed=done, now="")
        begin, steps = time.perf_counter(), 0

        def advance(record: StepRecord, best: ValidationRecord | None) -> None:
            nonlocal steps
            steps += 1
            now = f"{steps / (time.perf_counter() - begin):.2f} steps/s  loss {record.loss:.3f}"
            now += f"  accuracy {record.accuracy:.1f} %"
            bar.update(job, advance=1, now=now + (f"  best validation {best.accuracy:.1f} %" if best else ""))

        yield advance
