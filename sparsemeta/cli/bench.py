"""`sparsemeta bench`: what the sparse kernels save in seconds, against dense PyTorch, on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from sparsemeta.cli import bench_meta
from sparsemeta.cli import bench_options as options

app = typer.Typer(no_args_is_help=True)
app.command()(bench_meta.maml)
app.command()(bench_meta.adapt)


@app.callback()
def _describe() -> None:
    """Time the sparse kernels against dense PyTorch. Every result is checked before it is timed."""


@app.command()
def conv(
    shapes: options.Shapes = "",
    custom: options.Custom = "",
    sparsity: options.Sparsity = "0.8,0.9,0.95",
    pattern: options.Pattern = "unstructured",
    passes: Annotated[str, typer.Option("--pass", help="forward, forward+backward.")] = "forward,forward+backward",
    threads: options.Threads = "",
    backend: options.Backends = "",
    peers: Annotated[str, typer.Option(help="Others to time: compiled,torch.sparse,sparseprop.")] = "",
    rounds: options.Rounds = 20,
    seconds: options.Seconds = 1.0,
    quick: options.Quick = False,
    fresh_memory: options.FreshMemory = False,
    json_file: options.Json = None,
    plot_file: options.Plot = None,
) -> None:
    """Masked convolution, contiguous tensors in and out. Options that take several want commas between them."""
    from sparsemeta.bench import run  # here and below, so that the other commands do not load it
    from sparsemeta.bench.cases.masked_conv2d import cases

    settings = options.settings(rounds, seconds, quick, fresh_memory, json_file, plot_file)
    work = cases(
        options.conv_shapes(shapes, custom, quick),
        options.several(pattern, str),
        options.several(sparsity, float),
        options.several(passes, str),
        options.threads(threads),
        options.backends(backend),
        options.several(peers, str),
    )
    run.run(work, settings)


@app.command()
def block(
    shapes: options.Shapes = "",
    custom: options.Custom = "",
    sparsity: options.Sparsity = "0,0.8,0.9,0.95",
    pattern: options.Pattern = "unstructured",
    passes: Annotated[str, typer.Option("--pass", help="forward, forward+backward, second order.")] = (
        "forward+backward,second order"
    ),
    threads: options.Threads = "",
    backend: options.Backends = "",
    peers: Annotated[str, typer.Option(help="Another to time: compiled, which has no second order.")] = "",
    residual: Annotated[
        bool, typer.Option("--residual", help="Blocks of ResNet-12, of its shapes unless others are given.")
    ] = False,
    rounds: options.Rounds = 10,
    seconds: options.Seconds = 1.0,
    quick: options.Quick = False,
    fresh_memory: options.FreshMemory = False,
    json_file: options.Json = None,
    plot_file: options.Plot = None,
) -> None:
    """Convolution, batch norm, ReLU and 2x2 max-pool as one. 0 % sparsity is what fusing alone gains."""
    from sparsemeta.bench import run
    from sparsemeta.bench.cases.block import RESIDUAL, cases

    settings = options.settings(rounds, seconds, quick, fresh_memory, json_file, plot_file)
    own = residual and not (shapes or custom)
    work = cases(
        RESIDUAL[: 1 if quick else None] if own else options.conv_shapes(shapes, custom, quick),
        options.several(pattern, str),
        options.several(sparsity, float),
        options.several(passes, str),
        options.threads(threads),
        options.backends(backend),
        options.several(peers, str),
        residual=residual,
    )
    run.run(work, settings)
