"""`sparsemeta train`: meta-train one network, dense or with a ticket."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparsemeta.cli import recipe_options as options

if TYPE_CHECKING:
    from sparsemeta.meta import TrainConfig
    from sparsemeta.meta.distributed import Ranks
    from sparsemeta.meta.prepare import Prepared
    from sparsemeta.meta.recipe import Recipe

def train(
    out: Annotated[
        Path | None, typer.Argument(help="Checkpoint to write. Default with --config: runs/<its name>.safetensors.")
    ] = None,
    config: options.Config = None,
    assign: options.Assign = None,
    data: options.Data = None,
    dataset: options.Dataset = None,
    model: options.Model = None,
    hidden: options.Hidden = None,
    ticket: Annotated[Path | None, typer.Option(help="A ticket file: train its weights only, sparse.")] = None,
    start: Annotated[
        Path | None, typer.Option(help="A dense run's checkpoint to begin with, as for a ticket that is rewound to it.")
    ] = None,
    ways: options.Ways = None,
    shots: options.Shots = None,
    queries: options.Queries = None,
    inner_steps: options.InnerSteps = None,
    inner_lr: options.InnerLr = None,
    meta_batch: options.MetaBatch = None,
    meta_lr: options.MetaLr = None,
    first_order: options.FirstOrder = None,
    precision: Annotated[str | None, typer.Option(help="float32 or bf16.")] = None,
    steps: options.Steps = None,
    tasks: Annotated[int | None, typer.Option(min=2, help="Test tasks.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the initial weights and of all tasks.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from OUT.")] = False,
    tune: Annotated[
        bool, typer.Option("--tune", help="First measure which kernels are fastest for a ticket's shapes, and keep it.")
    ] = False,
    tensorboard: Annotated[Path | None, typer.Option(help="Folder for TensorBoard's files.")] = None,
    device: options.Device = "cpu",
    threads: options.Threads = None,
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
    flags = {
        "model": {"name": model, "ticket": ticket and str(ticket), "start": start and str(start), "hidden": hidden},
        "train": learning,
        "test": {"tasks": tasks, "seed": seed, "queries": queries},
    }
    recipe = options.recipe_of(config, assign, data, dataset, flags)
    if out is None and config is None:
        raise ValueError("expected OUT, the checkpoint to write, or --config FILE; got neither")
    if threads:
        torch.set_num_threads(threads)
    out = out or Path("runs") / f"{config.stem}.safetensors"
    if out.exists() and not resume:
        raise FileExistsError(f"expected no run at {out} yet; go on with it by --resume, or give another name")
    with joined(device, timeout) as ranks:
        run(recipe, out, resume, tune, tensorboard, own_device(device), ranks)


def own_device(device: str) -> str:
    """Of several GPUs the one that torchrun gives this process."""
    import os

    return f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" and "LOCAL_RANK" in os.environ else device


def measure_kernels(ready: Prepared, config: TrainConfig) -> None:
    """What `sparsemeta tune` does, for the passes of one task; the compiled chain has nothing to choose."""
    import copy

    from sparsemeta import backends, meta
    from sparsemeta.meta.chain import choose
    from sparsemeta.meta.meta_step import meta_gradient

    place = ready.train.state_dict()
    learner, task = meta.make_learner(copy.deepcopy(ready.model), config), ready.train.sample(1)
    ready.train.load_state_dict(place)
    if choose(learner, task, config) is None:
        found = backends.tune(lambda: meta_gradient(learner, task, config))
        typer.echo(f"measured {len(found)} passes; sparsemeta tune shows them")


def run(
    recipe: Recipe, out: Path, resume: bool, tune: bool, tensorboard: Path | None, device: str, ranks: Ranks
) -> None:
    """Train and judge what `recipe` describes."""
    from sparsemeta import meta
    from sparsemeta.meta.prepare import judge, prepare
    from sparsemeta.meta.trained import load_trained

    ready = prepare(recipe, device)
    if tune:
        measure_kernels(ready, recipe.train)
    result = meta.train(
        ready.model, ready.train, recipe.train, out, resume, validation=ready.validation,
        log=out.with_name(f"{out.stem}.jsonl"), tensorboard=tensorboard, about=ready.about,
    )  # fmt: skip
    trained = load_trained(result.best_checkpoint or out, device)
    score = judge(trained.learner, ready.splits.test, recipe.train, recipe.test, ready.about["normalise"], ranks)
    if ranks.first:
        typer.echo(f"{result.seconds_per_step:.4f} s a meta-step; checkpoint: {result.best_checkpoint or out}")
        typer.echo(f"accuracy on new tasks: {score}, seed {recipe.test.seed}")
