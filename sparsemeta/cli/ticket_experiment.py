"""`sparsemeta ticket experiment`: elastic tickets and block shapes, measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsemeta.cli.recipe_options import Device, Threads


def experiment(
    config: Annotated[Path, typer.Argument(help="TOML file as in configs/experiments: family, blocks or both.")],
    out: Annotated[Path, typer.Argument(help="Folder for results and checkpoints; with some there, it goes on.")],
    data: Annotated[Path, typer.Option(help="Folder with CIFAR-FS: cifar100.zip, or what it unpacks to.")],
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Stretch and squeeze tickets over a family of depths, and compare block shapes; print the tables."""
    import torch  # here, so that `sparsemeta --help` does not wait for it

    from sparsemeta import data as sets
    from sparsemeta import supervised

    if threads:
        torch.set_num_threads(threads)
    chosen = supervised.Experiment.read(config)  # before the images are read, which takes seconds
    supervised.experiment(chosen, sets.cifar_fs(data, device), out)
    typer.echo(f"wrote {out / 'results.json'} and {out / 'results.md'}")
