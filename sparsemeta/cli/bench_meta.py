"""`sparsemeta bench maml` and `sparsemeta bench adapt`: whole steps, dense and sparse."""

from __future__ import annotations

from typing import Annotated

import typer

from sparsemeta.cli import bench_options as options

Shapes = Annotated[str, typer.Option(help="28 (1-shot), 84 (5-shot): Conv-4-64. resnet12: 32x32, 1-shot.")]
Engine = Annotated[str, typer.Option(help="auto; chain: compiled, or an error; autograd.")]
Steps = Annotated[int | None, typer.Option(help="Inner steps; default 5, of resnet12 1.")]


def maml(
    shapes: Shapes = "28,84",
    sparsity: options.Sparsity = "0.8,0.9,0.95",
    pattern: options.Pattern = "unstructured",
    order: Annotated[str, typer.Option(help="first, second.")] = "first,second",
    tasks: Annotated[str, typer.Option(help="Tasks of a meta-step.")] = "1",
    steps: Steps = None,
    threads: options.Threads = "",
    backend: options.Backends = "",
    engine: Engine = "auto",
    peers: Annotated[str, typer.Option(help="Another to time: compiled (torch.func; compiling takes minutes).")] = "",
    memory: Annotated[bool, typer.Option("--memory", help="Peak memory at 1 and 10 steps, and no times.")] = False,
    rounds: options.Rounds = 5,
    seconds: options.Seconds = 1.0,
    quick: options.Quick = False,
    fresh_memory: options.FreshMemory = False,
    json_file: options.Json = None,
    plot_file: options.Plot = None,
) -> None:
    """A whole MAML meta-step: the inner loop, the loss of 75 queries (resnet12: 25), the meta-gradient, Adam."""
    from sparsemeta.bench import memory as peak_memory
    from sparsemeta.bench import run
    from sparsemeta.bench.cases.meta_shapes import chosen
    from sparsemeta.bench.cases.meta_step import cases

    settings = options.settings(rounds, seconds, quick, fresh_memory, json_file, plot_file)
    work = cases(
        chosen(options.several(shapes, str)[: 1 if quick else None], steps),
        options.several(order, str),
        options.several(sparsity, float),
        options.threads(threads),
        options.backends(backend),
        options.several(tasks, int),
        options.several(pattern, str),
        engine,
        options.several(peers, str),
    )
    if memory:
        peak_memory.report([peak for case in work for peak in peak_memory.peaks(case)], json_file)
    else:
        run.run(work, settings)


def adapt(
    shapes: Shapes = "28",
    sparsity: options.Sparsity = "0.8,0.9,0.95",
    pattern: options.Pattern = "unstructured",
    tasks: Annotated[str, typer.Option(help="Tasks adapted to, one after the other.")] = "1,32",
    steps: Steps = None,
    threads: options.Threads = "",
    backend: options.Backends = "",
    engine: Engine = "auto",
    rounds: options.Rounds = 5,
    seconds: options.Seconds = 1.0,
    quick: options.Quick = False,
    fresh_memory: options.FreshMemory = False,
    json_file: options.Json = None,
    plot_file: options.Plot = None,
) -> None:
    """First-order adaptation to new tasks, and the loss of 75 queries of each: the time for each task."""
    from sparsemeta.bench import run
    from sparsemeta.bench.cases.adapt import cases
    from sparsemeta.bench.cases.meta_shapes import chosen

    settings = options.settings(rounds, seconds, quick, fresh_memory, json_file, plot_file)
    work = cases(
        chosen(options.several(shapes, str)[: 1 if quick else None], steps),
        options.several(pattern, str),
        options.several(sparsity, float),
        options.several(tasks, int),
        options.threads(threads),
        options.backends(backend),
        engine,
    )
    run.run(work, settings)
