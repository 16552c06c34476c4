"""The progress bar of a training run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def step_bar(total: int, done: int, shown: bool) -> Iterator[Callable[[float, float], None]]:
    """A bar over ``total`` meta-steps of which ``done`` are behind; gives a function to call with loss and accuracy."""
    columns = TextColumn("meta-training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[now]}")
    with Progress(*columns, TimeRemainingColumn(), disable=not shown) as bar:
        job = bar.add_task("", total=total, completed=done, now="")
        begin, steps = time.perf_counter(), 0

        def advance(loss: float, accuracy: float) -> None:
            nonlocal steps
            steps += 1
            rate = steps / (time.perf_counter() - begin)
            bar.update(job, advance=1, now=f"{rate:.2f} steps/s  loss {loss:.3f}  accuracy {accuracy:.1f} %")

        yield advance
