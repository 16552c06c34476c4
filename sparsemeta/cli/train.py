"""`sparsemeta train`: meta-train one network, dense or with a ticket."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from torch import nn

    from sparsemeta.meta import TrainConfig


def train(
    out: Annotated[Path, typer.Argument(help="Checkpoint to write, and to go on from with --resume.")],
    data: Annotated[Path | None, typer.Option(help="Folder with Omniglot's two archives. Without it: glyphs.")] = None,
    ticket: Annotated[Path | None, typer.Option(help="A ticket file: train its weights only, sparse.")] = None,
    ways: Annotated[int, typer.Option(help="Classes of a task.")] = 5,
    shots: Annotated[int, typer.Option(help="Support images of each class.")] = 1,
    queries: Annotated[int, typer.Option(help="Query images of each class.")] = 5,
    inner_steps: Annotated[int, typer.Option(help="Steps of the inner loop.")] = 1,
    inner_lr: Annotated[float, typer.Option(help="Rate of the inner loop.")] = 0.2,
    meta_batch: Annotated[int, typer.Option(help="Tasks of a meta-step.")] = 4,
    meta_lr: Annotated[float, typer.Option(help="Rate of Adam.")] = 1e-3,
    first_order: Annotated[bool, typer.Option("--first-order", help="Leave out the second-order terms.")] = False,
    steps: Annotated[int, typer.Option(help="Meta-steps of the whole run.")] = 1000,
    hidden: Annotated[int, typer.Option(help="Filters of each convolution of Conv-4.")] = 64,
    tasks: Annotated[int, typer.Option(min=2, help="Test tasks.")] = 600,
    seed: Annotated[int, typer.Option(help="Of the initial weights and of the tasks.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from OUT.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads, PyTorch's and the kernels'.")] = None,
) -> None:
    """Meta-train Conv-4 by MAML, and print its accuracy on new tasks."""
    import torch  # here, so that `sparsemeta --help` does not wait for it

    from sparsemeta import data as sets
    from sparsemeta import meta

    if threads:
        torch.set_num_threads(threads)
    config = meta.TrainConfig(
        ways, shots, queries, inner_steps, inner_lr, first_order=first_order, meta_batch=meta_batch, meta_lr=meta_lr,
        steps=steps, seed=seed,
    )  # fmt: skip  one name a line would be longer than the rest
    splits = sets.omniglot(data) if data else sets.glyphs(1200).split(1000, 100, 100)
    model = _model(config, hidden, splits.train.image_shape, ticket)
    known, new = (sets.TaskSampler(part, ways, shots, queries, seed) for part in (splits.train, splits.test))
    meta.train(model, known, config, checkpoint=out, resume=resume)
    typer.echo(f"accuracy on new tasks: {meta.evaluate(model, new, config, tasks)}")


def _model(config: TrainConfig, hidden: int, image_shape: tuple[int, int, int], ticket: Path | None) -> nn.Module:
    """Conv-4 with weights from the seed; of those only the ticket's, if there is one."""
    import torch

    import sparsemeta as sm
    from sparsemeta.meta.seeds import seeded

    channels, *size = image_shape
    with seeded(config.seed, torch.device("cpu")):
        model = sm.models.Conv4(config.ways, channels, hidden, size)
    return sm.sparsify(model, sm.Ticket.load(ticket)) if ticket else model
