"""`sparsemeta bench`: what the sparse kernels save in seconds, against dense PyTorch, on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsemeta.cli import bench_options as options

if TYPE_CHECKING:
    from sparsemeta.bench.cases.conv_shapes import ConvShape

app = typer.Typer(no_args_is_help=True)


def _custom(option: str) -> Any:
    return typer.Option(option, help="Of the shape `custom`.", rich_help_panel="Custom shape")


@app.callback()
def _describe() -> None:
    """Time the sparse kernels against dense PyTorch. Every result is checked before it is timed."""


@app.command()
def conv(
    shapes: Annotated[str, typer.Option(help="Of conv4, resnet12, custom.")] = "conv4",
    sparsity: options.Sparsity = "0.8,0.9,0.95",
    pattern: Annotated[str, typer.Option(help="unstructured, or blocks: 16x1,4x4,8x8,1x1x3x3.")] = "unstructured",
    passes: Annotated[str, typer.Option("--pass")] = "forward,forward+backward",
    threads: options.Threads = "",
    backend: options.Backends = "",
    peers: Annotated[str, typer.Option(help="Others to time: compiled,torch.sparse,sparseprop.")] = "",
    rounds: options.Rounds = 20,
    seconds: options.Seconds = 1.0,
    quick: options.Quick = False,
    fresh_memory: options.FreshMemory = False,
    json_file: options.Json = None,
    plot_file: options.Plot = None,
    batch: Annotated[int | None, _custom("--batch")] = None,
    in_channels: Annotated[int | None, _custom("--in-channels")] = None,
    out_channels: Annotated[int | None, _custom("--out-channels")] = None,
    size: Annotated[int | None, _custom("--size")] = None,
    kernel: Annotated[int | None, _custom("--kernel")] = None,
    stride: Annotated[int | None, _custom("--stride")] = None,
    input_grad: Annotated[bool | None, _custom("--input-grad/--no-input-grad")] = None,
) -> None:
    """Masked convolution, contiguous tensors in and out. Options that take several want commas between them."""
    from sparsemeta.bench import run  # here and below, so that the other commands do not load it
    from sparsemeta.bench.cases.masked_conv2d import cases

    settings = options.settings(rounds, seconds, quick, fresh_memory, json_file, plot_file)
    own = dict(batch=batch, in_channels=in_channels, out_channels=out_channels, size=size, kernel=kernel, stride=stride)
    own = {name: value for name, value in {**own, "input_grad": input_grad}.items() if value is not None}
    work = cases(
        _shapes(options.several(shapes, str), own, quick),
        options.several(pattern, str),
        options.several(sparsity, float),
        options.several(passes, str),
        options.threads(threads),
        options.backends(backend),
        options.several(peers, str),
    )
    run.run(work, settings)


def _shapes(names: list[str], own: dict[str, int], quick: bool) -> list[ConvShape]:
    from sparsemeta.bench.cases.conv_shapes import SHAPES, ConvShape

    sets = {**SHAPES, "custom": (ConvShape(**own),)}
    if wrong := [name for name in names if name not in sets]:
        raise ValueError(f"expected shapes to be of {', '.join(sets)}; got {', '.join(wrong)}")
    if own and "custom" not in names:
        raise ValueError(f"expected --shapes custom with {', '.join(own)}, got {', '.join(names)}")
    return [shape for name in names for shape in (sets[name][:1] if quick else sets[name])]


@app.command()
def maml(
    shapes: Annotated[str, typer.Option(help="28: one channel, 1-shot. 84: three channels, 5-shot.")] = "28,84",
    sparsity: options.Sparsity = "0.8,0.9,0.95",
    order: Annotated[str, typer.Option(help="first, second.")] = "first,second",
    tasks: Annotated[int, typer.Option(help="Tasks of a meta-step.")] = 1,
    threads: options.Threads = "",
    backend: options.Backends = "",
    rounds: options.Rounds = 5,
    seconds: options.Seconds = 1.0,
    quick: options.Quick = False,
    fresh_memory: options.FreshMemory = False,
    json_file: options.Json = None,
    plot_file: options.Plot = None,
) -> None:
    """A whole MAML meta-step of Conv-4-64: 5 inner steps, the query loss of 75 images, the meta-gradient, Adam."""
    from sparsemeta.bench import run
    from sparsemeta.bench.cases.meta_step import cases

    settings = options.settings(rounds, seconds, quick, fresh_memory, json_file, plot_file)
    work = cases(
        options.several(shapes, str)[: 1 if quick else None],
        options.several(order, str),
        options.several(sparsity, float),
        options.threads(threads),
        options.backends(backend),
        tasks,
    )
    run.run(work, settings)
