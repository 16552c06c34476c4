"""The demo from the first step to the report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import track

from sparsemeta import backends
from sparsemeta.demo import figures
from sparsemeta.demo.folder import DemoFolder
from sparsemeta.demo.settings import Settings
from sparsemeta.demo.stages import Stages
from sparsemeta.demo.table import as_rich, headline
from sparsemeta.demo.tasks import draw, judge, load
from sparsemeta.demo.timing import WARM_UP, time_meta_steps


def demo(settings: Settings, out: Path, root: Path | None = None, resume: bool = False) -> dict[str, Any]:
    """Meta-train dense, draw a ticket, rewind, meta-train the ticket, compare both, and write the results to ``out``.

    One round of magnitude pruning with rewinding (Frankle et al. 2020, arXiv 1912.05671) for second-order MAML (Finn
    et al. 2017, arXiv 1703.03400).

    Args:
        settings: the recipe.
        out: folder for ``report.html``, ``figures.json``, ``ticket.safetensors`` and the checkpoints; made if missing.
        root: folder with Omniglot's archives, where ``settings.data`` is ``"omniglot"``.
        resume: go on with the interrupted demo in ``out``.

    Returns:
        What ``figures.json`` holds.

    Raises:
        FileNotFoundError, ValueError: no data in ``root``; ``resume`` where no demo of these settings began. Nothing
            has been written then.
    """
    console, begin = Console(), time.perf_counter()
    folder, splits = DemoFolder(out), load(settings, root)
    (folder.check if resume else folder.begin)(figures.configuration(settings))
    if reasons := backends.available()["cpu"]:
        text = f"[yellow]Without the compiled kernels the ticket saves no time:[/yellow] {escape(reasons[0])}"
        console.print(text, soft_wrap=True)
    stages = Stages(settings, splits.train, folder.checkpoints)
    with stage(console, f"Dense network to step {settings.rewind}, where the ticket will start"):
        stages.train_early()
    with stage(console, f"Dense network to step {settings.steps}"):
        dense, dense_history = stages.train_dense()
    ticket = stages.draw_ticket(dense)
    with stage(console, f"Ticket, {100 - 100 * ticket.sparsity:.0f} % of the weights, to step {settings.steps}"):
        sparse, ticket_history = stages.train_ticket(ticket)
    with stage(console, f"Accuracy on {settings.eval_tasks} new tasks"), console.status("dense, then ticket"):
        scores = [judge(model, splits.test, settings) for model in (dense, sparse)]
    with stage(console, "Seconds of a meta-step"):
        rounds = track(range(settings.rounds + WARM_UP), "dense and ticket in turns", console=console)
        seconds = time_meta_steps(dense, sparse, draw(splits.train, settings.config()), settings, rounds)
    result = figures.assemble(
        settings,
        ticket,
        accuracy=figures.accuracy(*scores),
        speed=figures.speed(seconds, ticket.flops(dense, splits.train.image_shape)),
        training={"dense": figures.curve(dense_history), "ticket": figures.curve(ticket_history, settings.rewind)},
        total_seconds=time.perf_counter() - begin,
    )
    folder.save(result, ticket)
    console.print(as_rich(result), f"[bold]{headline(result)}[/bold]", f"Report: {out / 'report.html'}", sep="\n")
    return result


@contextmanager
def stage(console: Console, title: str) -> Iterator[None]:
    """A heading, and afterwards the seconds it took."""
    console.print(f"[bold]{title}[/bold]")
    begin = time.perf_counter()
    yield
    console.print(f"{time.perf_counter() - begin:.0f} s")
