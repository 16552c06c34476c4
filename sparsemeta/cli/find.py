"""`sparsemeta find`: find a ticket."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from torch import nn

    from sparsemeta.data import Splits
    from sparsemeta.meta import TrainConfig


def find(
    out: Annotated[Path, typer.Option(help="Ticket file to write; figures and plots go beside it.")],
    method: Annotated[str, typer.Option(help="imp, magnitude, snip, grasp, synflow, taylor, obs, random, ...")] = "imp",
    model: Annotated[str, typer.Option(help="conv4 or resnet12.")] = "conv4",
    data: Annotated[str, typer.Option(help="Folder with Omniglot's two archives, or glyphs.")] = "glyphs",
    sparsity: Annotated[float, typer.Option(help="Fraction of the covered weights to prune.")] = 0.8,
    block: Annotated[str, typer.Option(help="1x1, 4x4, 4x4x3x3, kernels, channels, or 2:4.")] = "1x1",
    distribution: Annotated[str, typer.Option(help="global, layer or erk.")] = "global",
    every_unit: Annotated[bool, typer.Option("--every-unit", help="Keep a weight of every output unit.")] = False,
    exclude: Annotated[list[str] | None, typer.Option(help="Layers to leave dense; the head if none is given.")] = None,
    schedule: Annotated[str | None, typer.Option(help="one-shot, iterative, exponential or gradual.")] = None,
    option: Annotated[list[str] | None, typer.Option(help="Of the method: NAME=VALUE, as rounds=5.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Checkpoint of `train`: score its weights, train none.")] = None,
    tasks: Annotated[int, typer.Option(min=1, help="Tasks that a score looks at.")] = 32,
    state: Annotated[Path | None, typer.Option(help="Folder from which an interrupted search can go on.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the search in STATE.")] = False,
    steps: Annotated[int, typer.Option(help="Meta-steps of a training run.")] = 1000,
    rewind: Annotated[int | None, typer.Option(help="Meta-step to rewind to; 5 % of STEPS if not given.")] = None,
    ways: Annotated[int, typer.Option(help="Classes of a task.")] = 5,
    shots: Annotated[int, typer.Option(help="Support images of each class.")] = 1,
    queries: Annotated[int, typer.Option(help="Query images of each class.")] = 5,
    inner_steps: Annotated[int, typer.Option(help="Steps of the inner loop.")] = 1,
    inner_lr: Annotated[float, typer.Option(help="Rate of the inner loop.")] = 0.2,
    meta_batch: Annotated[int, typer.Option(help="Tasks of a meta-step.")] = 4,
    meta_lr: Annotated[float, typer.Option(help="Rate of Adam.")] = 1e-3,
    first_order: Annotated[bool, typer.Option("--first-order", help="Leave out the second-order terms.")] = False,
    hidden: Annotated[int, typer.Option(help="Filters of each convolution of Conv-4.")] = 64,
    seed: Annotated[int, typer.Option(help="Of the initial weights, the tasks and the search.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads, PyTorch's and the kernels'.")] = None,
) -> None:
    """Find a ticket by meta-training and pruning, and write it with its figures and plots."""
    import torch  # here, so that `sparsemeta --help` does not wait for it

    from sparsemeta import data as sets
    from sparsemeta import meta, pruning
    from sparsemeta.pruning.trace import save_found

    if threads:
        torch.set_num_threads(threads)
    config = meta.TrainConfig(
        ways, shots, queries, inner_steps, inner_lr, first_order=first_order, meta_batch=meta_batch, meta_lr=meta_lr,
        steps=steps, seed=seed,
    )  # fmt: skip  one name a line would be longer than the rest
    options = _options(option or [])
    splits = _splits(data)
    run = pruning.MetaRun(sets.TaskSampler(splits.train, ways, shots, queries, seed), config)
    network = _network(model, config, hidden, splits.train.image_shape, weights)
    out.parent.mkdir(parents=True, exist_ok=True)  # now, and not after hours
    found = pruning.find_ticket(
        method, network, sparsity=sparsity, distribution=distribution, kind=block, schedule=schedule, seed=seed,
        keep_one="unit" if every_unit else "layer", exclude=exclude or ["head"], run=None if weights else run,
        probe=run.probe(tasks), rewind=rewind, state=state, resume=resume,
        provenance={"model": model, "data": Path(data).name, "hidden": hidden}, **options,
    )  # fmt: skip
    files = save_found(found, out)
    typer.echo(found.ticket.summary())
    typer.echo(f"cost: {found.cost.flops:.3g} FLOPs of training, {found.cost.seconds:.1f} s")
    typer.echo("\n".join(f"wrote {file}" for file in files))


def _options(pairs: list[str]) -> dict[str, Any]:
    options = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"expected an option as NAME=VALUE, got {pair!r}; write --option rounds=5")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options


def _splits(data: str) -> Splits:
    from sparsemeta import data as sets

    return sets.glyphs(1200).split(1000, 100, 100) if data == "glyphs" else sets.omniglot(Path(data))


def _network(
    name: str, config: TrainConfig, hidden: int, image_shape: tuple[int, int, int], weights: Path | None
) -> nn.Module:
    """The model with weights from the seed, or from a checkpoint of `sparsemeta train`."""
    import torch

    from sparsemeta import models
    from sparsemeta.meta.checkpoint import load_checkpoint
    from sparsemeta.meta.run import model_mismatches
    from sparsemeta.meta.seeds import seeded

    channels, *size = image_shape
    makers = {
        "conv4": lambda: models.Conv4(config.ways, channels, hidden, size),
        "resnet12": lambda: models.ResNet12(config.ways, channels, image_size=size),
    }
    if name not in makers:
        raise ValueError(f"expected model to be one of {', '.join(makers)}, got {name!r}")
    with seeded(config.seed, torch.device("cpu")):
        model = makers[name]()
    if weights is None:
        return model
    state = load_checkpoint(weights)["model"]
    if wrong := model_mismatches(model, state):
        raise ValueError(f"expected a checkpoint of a dense {name} in {weights}, got another: {'; '.join(wrong)}")
    model.load_state_dict(state)
    return model
