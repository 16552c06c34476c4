"""`sparsemeta ticket experiment`: elastic tickets and block shapes, measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def experiment(
    config: Annotated[Path, typer.Argument(help="TOML file with [family], [blocks] or both, as in configs/.")],
    out: Annotated[Path, typer.Argument(help="Folder for results and checkpoints; with some there, it goes on.")],
    data: Annotated[Path, typer.Option(help="Folder with CIFAR-FS: cifar100.zip, or what it unpacks to.")],
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda.")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads, PyTorch's and the kernels'.")] = None,
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
