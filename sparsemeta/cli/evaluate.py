"""`sparsemeta eval`: how well a checkpoint adapts to new tasks."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from sparsemeta.cli.recipe_options import Device, Threads


def evaluate(
    checkpoint: Annotated[Path, typer.Option(help="As `sparsemeta train` writes it.")],
    data: Annotated[Path | None, typer.Option(help="Folder of the data set.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Default: the one that it was trained on.")] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    tasks: Annotated[int, typer.Option(min=2, help="Tasks.")] = 600,
    queries: Annotated[int | None, typer.Option(help="Query images of each class. Default: the checkpoint's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the tasks. Default: the checkpoint's.")] = None,
    inner_steps: Annotated[int | None, typer.Option(min=1, help="Inner steps. Default: those of the run.")] = None,
    pattern: Annotated[str | None, typer.Option(help="A Lambda pattern, as 00011: the layers that adapt.")] = None,
    device: Device = "cpu",
    threads: Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print the accuracy of a checkpoint on new tasks, with its interval and everything that it depends on."""
    import torch  # here, so that `sparsemeta --help` does not wait for it

    from sparsemeta.data import Splits
    from sparsemeta.keys import check_keys
    from sparsemeta.meta.prepare import judge, splits_for
    from sparsemeta.meta.recipe import TestRecipe
    from sparsemeta.meta.trained import load_trained

    check_keys([split], Splits._fields, "a split")
    if threads:
        torch.set_num_threads(threads)
    trained = load_trained(checkpoint, device)
    name = dataset or trained.about["data"]["name"]
    images = getattr(splits_for(trained, data, dataset, device), split)
    given = {"tasks": tasks, "queries": queries, "seed": seed}
    test = TestRecipe(**trained.about["test"] | {key: value for key, value in given.items() if value is not None})
    config = replace(trained.config, eval_inner_steps=inner_steps or trained.config.eval_inner_steps)
    score = judge(trained.learner, images, config, test, trained.about["normalise"], pattern=pattern)
    if as_json:
        what = {"data": name, "split": split, "pattern": pattern, "config": asdict(config)}
        figures = {name: value for name, value in vars(score).items() if name != "accuracies"}
        typer.echo(json.dumps({**figures, **asdict(test), **what}, indent=2))
        return
    what = f"{config.ways}-way {config.shots}-shot, {config.algorithm}" + (f", pattern {pattern}" if pattern else "")
    typer.echo(f"{name} {split}, {what}: {score}, seed {test.seed}")
