"""`sparsemeta find`: find a ticket."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsemeta.cli import recipe_options as options

if TYPE_CHECKING:
    from sparsemeta.meta.recipe import Recipe


def find(
    out: Annotated[Path, typer.Option(help="Ticket file to write; figures and plots go beside it.")],
    method: Annotated[str, typer.Option(help="imp, mwt, anp, or a score: magnitude, snip, obs, taylor, ...")] = "imp",
    sparsity: Annotated[float, typer.Option(help="Fraction of the covered weights to prune.")] = 0.8,
    block: Annotated[str, typer.Option(help="1x1, 4x4, 4x4x3x3, kernels, channels, or 2:4.")] = "1x1",
    distribution: Annotated[str, typer.Option(help="global, layer or erk.")] = "global",
    every_unit: Annotated[bool, typer.Option("--every-unit", help="Keep a weight of every output unit.")] = False,
    exclude: Annotated[list[str] | None, typer.Option(help="Layers to leave dense; the head if none is given.")] = None,
    schedule: Annotated[str | None, typer.Option(help="one-shot, iterative, exponential or gradual.")] = None,
    option: Annotated[list[str] | None, typer.Option(help="Of the method: NAME=VALUE, as rounds=5.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Of `train`: score its weights, train none.")] = None,
    score_tasks: Annotated[int, typer.Option(min=1, help="Tasks that a score looks at.")] = 32,
    state: Annotated[Path | None, typer.Option(help="Folder from which an interrupted search can go on.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the search in STATE.")] = False,
    rewind: Annotated[int | None, typer.Option(help="Meta-step to rewind to; 5 % of STEPS if not given.")] = None,
    config: options.Config = None,
    assign: options.Assign = None,
    data: options.Data = None,
    dataset: options.Dataset = None,
    model: options.Model = None,
    hidden: options.Hidden = None,
    ways: options.Ways = None,
    shots: options.Shots = None,
    queries: options.Queries = None,
    inner_steps: options.InnerSteps = None,
    inner_lr: options.InnerLr = None,
    meta_batch: options.MetaBatch = None,
    meta_lr: options.MetaLr = None,
    first_order: options.FirstOrder = None,
    steps: options.Steps = None,
    seed: Annotated[int | None, typer.Option(help="Of the initial weights, the tasks and the search.")] = None,
    device: options.Device = "cpu",
    threads: options.Threads = None,
) -> None:
    """Find a ticket by meta-training and pruning, and write it with its figures and plots.

    What is trained is said as for `sparsemeta train`; without validation and test, which a search has no use for.
    """
    import torch  # here, so that `sparsemeta --help` does not wait for it

    from sparsemeta import pruning
    from sparsemeta.meta.prepare import prepare
    from sparsemeta.meta.trained import load_weights
    from sparsemeta.pruning.trace import save_found

    if threads:
        torch.set_num_threads(threads)
    learning = dict(
        ways=ways, shots=shots, queries=queries, inner_steps=inner_steps, inner_lr=inner_lr, first_order=first_order,
        meta_batch=meta_batch, meta_lr=meta_lr, steps=steps, seed=seed,
    )  # fmt: skip  one name a line would be longer than the rest
    flags = {"model": {"name": model, "hidden": hidden}, "train": learning}
    recipe = without_validation(options.recipe_of(config, assign, data, dataset, flags))
    of_method = _options(option or [])
    ready = prepare(recipe, device)
    if checkpoint:
        load_weights(ready.model, checkpoint, recipe.model.name)
    run = pruning.MetaRun(ready.train, recipe.train)
    out.parent.mkdir(parents=True, exist_ok=True)  # now, and not after hours
    found = pruning.find_ticket(
        method, ready.model, sparsity=sparsity, distribution=distribution, kind=block, schedule=schedule,
        seed=recipe.train.seed, keep_one="unit" if every_unit else "layer", exclude=exclude or ["head"],
        run=None if checkpoint else run, probe=run.probe(score_tasks), rewind=rewind, state=state, resume=resume,
        provenance={"model": recipe.model.name, "arguments": ready.about["model"]["arguments"],
                    "data": recipe.data.name}, **of_method,
    )  # fmt: skip
    files = save_found(found, out)
    typer.echo(found.ticket.summary())
    typer.echo(f"cost: {found.cost.flops:.3g} FLOPs of training, {found.cost.seconds:.1f} s")
    typer.echo("\n".join(f"wrote {file}" for file in files))


def without_validation(recipe: Recipe) -> Recipe:
    """`recipe` for a search, which compares training runs of the same length and starts dense."""
    if recipe.model.ticket:
        got = recipe.model.ticket
        raise ValueError(f"expected a dense model to find a ticket in; got the ticket {got}. Leave it out")
    return replace(recipe, train=replace(recipe.train, validate_every=None, patience=None))


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
