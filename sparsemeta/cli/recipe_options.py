"""Options that say what is trained and on what, of `sparsemeta train` and `sparsemeta find`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from sparsemeta.meta.recipe import Recipe

# What a run is made of where no --config says otherwise.
BASE = {"data": {}, "model": {}, "train": {"queries": 5, "inner_lr": 0.2, "meta_batch": 4}, "test": {"queries": 5}}

Config = Annotated[Path | None, typer.Option(help="A TOML file as in configs/; other options override it.")]
Assign = Annotated[
    list[str] | None, typer.Option("--set", help="KEY=VALUE of the table train, or TABLE.KEY=VALUE; may be repeated.")
]
Data = Annotated[Path | None, typer.Option(help="Folder of the data set. Without --dataset: Omniglot's.")]
Dataset = Annotated[str | None, typer.Option(help="Of `sparsemeta data list`. Default: glyphs.")]
Model = Annotated[str | None, typer.Option(help="conv4, film_conv4 (for CAVIA) or resnet12. Default: conv4.")]
Hidden = Annotated[int | None, typer.Option(help="Filters of each convolution of Conv-4.")]
Ways = Annotated[int | None, typer.Option(help="Classes of a task.")]
Shots = Annotated[int | None, typer.Option(help="Support images of each class.")]
Queries = Annotated[int | None, typer.Option(help="Query images of each class.")]
InnerSteps = Annotated[int | None, typer.Option(help="Steps of the inner loop.")]
InnerLr = Annotated[float | None, typer.Option(help="Rate of the inner loop.")]
MetaBatch = Annotated[int | None, typer.Option(help="Tasks of a meta-step.")]
MetaLr = Annotated[float | None, typer.Option(help="Rate of the outer optimiser.")]
FirstOrder = Annotated[bool | None, typer.Option("--first-order", help="Leave out second-order terms.")]
Steps = Annotated[int | None, typer.Option(help="Meta-steps of the whole run.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.", callback=lambda device: usable(device))]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads, PyTorch's and the kernels'.")]


def usable(device: str) -> str:
    """`device`, if this PyTorch can run there; raises `ValueError` before anything is loaded."""
    kind = device.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise ValueError(f"expected --device cpu or cuda; got {device!r}")
    if kind == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ValueError(f"expected a GPU for --device {device}; PyTorch finds none. See sparsemeta info")
    return device


def recipe_of(
    config: Path | None,
    assignments: Iterable[str] | None,
    data: Path | None,
    dataset: str | None,
    flags: Mapping[str, Mapping[str, Any]],
) -> Recipe:
    """The file's, then what the flags of each table say where they are not None, then what `--set` says."""
    from sparsemeta.meta.recipe import Recipe, assigned, read_tables

    if data and not (config or dataset):
        dataset = "omniglot"
    tables = read_tables(config) if config else BASE
    flags = {"data": {"root": data and str(data), "name": dataset}, **flags}
    given = {name: {key: value for key, value in table.items() if value is not None} for name, table in flags.items()}
    both = {name: {**tables.get(name, {}), **given.get(name, {})} for name in {**tables, **given}}
    return Recipe.make(assigned(both, assignments or []))
