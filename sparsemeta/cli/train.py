"""`sparsemeta train`: meta-train one network, dense or with a ticket."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from sparsemeta.meta.distributed import Ranks
    from sparsemeta.meta.recipe import Recipe

# What a run is made of where no --config says otherwise.
BASE = {"data": {}, "model": {}, "train": {"queries": 5, "inner_lr": 0.2, "meta_batch": 4}, "test": {"queries": 5}}


def train(
    out: Annotated[
        Path | None, typer.Argument(help="Checkpoint to write. Default with --config: runs/<its name>.safetensors.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file as in configs/; other options override it.")] = None,
    assign: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE of [train], or TABLE.KEY=VALUE; may be repeated.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the data set. Without --dataset: Omniglot's.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Of `sparsemeta data list`. Default: glyphs.")] = None,
    ticket: Annotated[Path | None, typer.Option(help="A ticket file: train its weights only, sparse.")] = None,
    ways: Annotated[int | None, typer.Option(help="Classes of a task.")] = None,
    shots: Annotated[int | None, typer.Option(help="Support images of each class.")] = None,
    queries: Annotated[int | None, typer.Option(help="Query images of each class.")] = None,
    inner_steps: Annotated[int | None, typer.Option(help="Steps of the inner loop.")] = None,
    inner_lr: Annotated[float | None, typer.Option(help="Rate of the inner loop.")] = None,
    meta_batch: Annotated[int | None, typer.Option(help="Tasks of a meta-step.")] = None,
    meta_lr: Annotated[float | None, typer.Option(help="Rate of the outer optimiser.")] = None,
    first_order: Annotated[bool | None, typer.Option("--first-order", help="Leave out second-order terms.")] = None,
    precision: Annotated[str | None, typer.Option(help="float32 or bf16.")] = None,
    steps: Annotated[int | None, typer.Option(help="Meta-steps of the whole run.")] = None,
    hidden: Annotated[int | None, typer.Option(help="Filters of each convolution of Conv-4.")] = None,
    tasks: Annotated[int | None, typer.Option(min=2, help="Test tasks.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the initial weights and of all tasks.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from OUT.")] = False,
    tensorboard: Annotated[Path | None, typer.Option(help="Folder for TensorBoard's files.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads, PyTorch's and the kernels'.")] = None,
    timeout: Annotated[float, typer.Option(help="With torchrun: seconds until a silent process counts as gone.")] = 120,
) -> None:
    """Meta-train a network, log to OUT with .jsonl, and print its accuracy on new tasks.

    With validation (validate_every) the weights that are judged are those of the best one, OUT with .best.
    Several processes: torchrun --nproc-per-node 2 -m sparsemeta train ...
    """
    import torch  # here, so that `sparsemeta --help` does not wait for it

    from sparsemeta.meta.distributed import joined

    learning = dict(
        ways=ways, shots=shots, queries=queries, inner_steps=inner_steps, inner_lr=inner_lr, meta_batch=meta_batch,
        meta_lr=meta_lr, first_order=first_order, precision=precision, steps=steps, seed=seed,
    )  # fmt: skip  one name a line would be longer than the rest
    if data and not (config or dataset):
        dataset = "omniglot"
    flags = {
        "data": {"root": data and str(data), "name": dataset},
        "model": {"ticket": ticket and str(ticket), "hidden": hidden},
        "train": learning,
        "test": {"tasks": tasks, "seed": seed, "queries": queries},
    }
    recipe = recipe_of(config, flags, assign or [])
    if out is None and config is None:
        raise ValueError("expected OUT, the checkpoint to write, or --config FILE; got neither")
    if threads:
        torch.set_num_threads(threads)
    with joined(device, timeout) as ranks:
        run(recipe, out or Path("runs") / f"{config.stem}.safetensors", resume, tensorboard, own_device(device), ranks)


def recipe_of(config: Path | None, flags: dict[str, dict[str, Any]], assignments: list[str]) -> Recipe:
    """The file's, then what the flags say, then what `--set` says."""
    from sparsemeta.meta.recipe import Recipe, assigned, read_tables

    tables = read_tables(config) if config else BASE
    given = {name: {key: value for key, value in table.items() if value is not None} for name, table in flags.items()}
    both = {name: {**tables.get(name, {}), **given.get(name, {})} for name in {**tables, **given}}
    return Recipe.make(assigned(both, assignments))


def own_device(device: str) -> str:
    """Of several GPUs the one that torchrun gives this process."""
    import os

    return f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" and "LOCAL_RANK" in os.environ else device


def run(recipe: Recipe, out: Path, resume: bool, tensorboard: Path | None, device: str, ranks: Ranks) -> None:
    """Train and judge what `recipe` describes."""
    from sparsemeta import meta
    from sparsemeta.meta.prepare import judge, prepare
    from sparsemeta.meta.trained import load_trained

    ready = prepare(recipe, device)
    result = meta.train(
        ready.model, ready.train, recipe.train, out, resume, validation=ready.validation,
        log=out.with_name(f"{out.stem}.jsonl"), tensorboard=tensorboard, about=ready.about,
    )  # fmt: skip
    trained = load_trained(result.best_checkpoint or out, device)
    score = judge(trained.learner, ready.splits.test, recipe.train, recipe.test, ready.about["normalise"], ranks)
    if ranks.first:
        typer.echo(f"{result.seconds_per_step:.4f} s a meta-step; checkpoint: {result.best_checkpoint or out}")
        typer.echo(f"accuracy on new tasks: {score}, seed {recipe.test.seed}")
