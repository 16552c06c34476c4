"""`sparsemeta data`: what data sets there are, and fetching them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich import progress
from rich.console import Console
from rich.table import Table

app = typer.Typer(no_args_is_help=True)
Root = Annotated[Path, typer.Option("--data", help="Folder of the data set; ROOT in what is printed.")]


@app.callback()
def _describe() -> None:
    """List and download data sets."""


@app.command("list")
def show(root: Root = Path("data")) -> None:
    """Print the data sets, where they come from, and which of their files are there."""
    from sparsemeta.data.sources import SOURCES  # here, so that `sparsemeta --help` does not wait for torch

    table = Table("name", "what", "from", f"files in {root}")
    for name, source in SOURCES.items():
        files = [f"{file} {'there' if (root / file).exists() else 'missing'}" for file, *_ in source.files]
        table.add_row(name, source.about, source.page, "\n".join(files) or source.how)
    Console().print(table)


def _advance(bar: progress.Progress, job: progress.TaskID, done: int, total: int | None) -> None:
    bar.update(job, completed=done, total=total)


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="Of those that `sparsemeta data list` prints.")],
    root: Root = Path("data"),
    timeout: Annotated[float, typer.Option(help="Seconds without an answer.")] = 30,
) -> None:
    """Download a data set's official files, check them, and go on with what an earlier try has left."""
    from sparsemeta.data.download import fetch
    from sparsemeta.data.sources import source

    chosen = source(name)
    if not chosen.files:
        raise ValueError(f"expected a data set that can be downloaded; got {name}: {chosen.how}")
    columns = progress.TextColumn("{task.description}"), progress.BarColumn(), progress.DownloadColumn()
    with progress.Progress(*columns, progress.TimeRemainingColumn()) as bar:
        for file, url, checksum in chosen.files:
            job = bar.add_task(file, total=None)
            fetch(url, root / file, checksum, timeout, partial(_advance, bar, job))
    typer.echo(f"{name} is in {root}: {', '.join(file for file, *_ in chosen.files)}")
