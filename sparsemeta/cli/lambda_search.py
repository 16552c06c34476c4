"""`sparsemeta lambda-search`: which layers need to adapt, and what the others cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparsemeta.cli.recipe_options import Threads

if TYPE_CHECKING:
    from sparsemeta.bench.run import Settings
    from sparsemeta.meta import LambdaSearch


def lambda_search(
    checkpoint: Annotated[Path, typer.Option(help="A run of `sparsemeta train`, dense or of a ticket.")],
    data: Annotated[Path | None, typer.Option(help="Folder of the data set.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Default: the one that it was trained on.")] = None,
    delta: Annotated[float, typer.Option(help="Points of accuracy that may be lost.")] = 1.0,
    budget: Annotated[float | None, typer.Option(help="Milliseconds: take the best accuracy within them.")] = None,
    reference: Annotated[Path | None, typer.Option(help="A run to compare with, such as a ticket's dense one.")] = None,
    patterns: Annotated[str, typer.Option(help="00111,00001 or per step 11111/00011. Default: all of one row.")] = "",
    steps: Annotated[int | None, typer.Option(min=1, help="Inner steps. Default: those of the run.")] = None,
    shots: Annotated[int | None, typer.Option(min=1, help="Support images of each class. Default: the run's.")] = None,
    tasks: Annotated[int, typer.Option(min=2, help="Meta-validation tasks.")] = 200,
    prefix_cache: Annotated[bool, typer.Option(help="Run the layers before the first that moves once.")] = True,
    rounds: Annotated[int, typer.Option(min=2, help="Least number of rounds; each times every pattern once.")] = 20,
    seed: Annotated[int, typer.Option(help="Of the tasks.")] = 1,
    results: Annotated[Path | None, typer.Option(help="File to keep figures in, and to go on from.")] = None,
    retime: Annotated[bool, typer.Option("--retime", help="Take no times from RESULTS; measure them again.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the outcome to this file.")] = None,
    plot_file: Annotated[Path | None, typer.Option("--plot", help="Plot accuracy over time: .png, .svg, .pdf.")] = None,
    threads: Threads = None,
) -> None:
    """Measure time and accuracy of adaptation under every Lambda pattern, and take the best."""
    import dataclasses

    import torch  # here, so that `sparsemeta --help` does not wait for it

    from sparsemeta import meta
    from sparsemeta.bench import allocator
    from sparsemeta.bench.run import Settings
    from sparsemeta.bench.timing import Budget
    from sparsemeta.cli.bench_options import several
    from sparsemeta.meta.prepare import sampler_of, splits_for

    if threads:
        torch.set_num_threads(threads)
    allocator.keep_freed_memory()  # for dense and sparse alike, as in `sparsemeta bench`
    settings = Settings(Budget(rounds), json_file=json_file, plot_file=plot_file)
    trained = meta.load_trained(checkpoint)
    compared = meta.load_trained(reference).learner if reference else None
    config = trained.config
    steps = steps or config.eval_inner_steps or config.inner_steps
    config = dataclasses.replace(config, eval_inner_steps=steps, shots=shots or config.shots)
    images = splits_for(trained, data, dataset, "cpu").val
    sampler = sampler_of(images, config, seed, trained.about["normalise"])
    search = meta.lambda_search(
        trained.learner, sampler, config, several(patterns, str) or None, delta, budget and budget / 1e3, tasks,
        settings.budget, prefix_cache=prefix_cache, reference=compared, results=results, retime=retime,
    )  # fmt: skip  one argument a line would be longer than the rest
    report(search, settings)


def report(search: LambdaSearch, settings: Settings) -> None:
    """Print the table, and write what is asked for."""
    from rich.console import Console

    from sparsemeta.meta import lambda_report

    console = Console()
    if not console.is_terminal:  # a file has room for whole rows
        console.width = 1000
    console.print(lambda_report.table(search))
    facts = ", ".join(f"{name} {value}" for name, value in search.about.items())
    console.print(f"{facts}\n* = on the Pareto front; times of one adaptation, the patterns in turns", soft_wrap=True)
    if settings.json_file:
        lambda_report.save_json(search, settings.json_file)
    if settings.plot_file:
        lambda_report.plot(search, settings.plot_file)

