"""`sparsemeta bench`: what the sparse kernels save in seconds, against dense PyTorch, on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from sparsemeta.bench.cases.conv_shapes import ConvShape
    from sparsemeta.bench.run import Settings

T = TypeVar("T")
Rounds = Annotated[int, typer.Option(help="Least number of rounds; each runs every way once.")]
Seconds = Annotated[float, typer.Option(help="Least time for a case.")]
Quick = Annotated[bool, typer.Option("--quick", help="Few rounds of the first shape of each set, to try it out.")]
FreshMemory = Annotated[bool, typer.Option("--fresh-memory", help="Let the allocator give freed memory back.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write every figure to this file.")]
Plot = Annotated[Path | None, typer.Option("--plot", help="Plot the speed-up over sparsity: .png, .svg or .pdf.")]


def _custom(option: str) -> Any:
    return typer.Option(option, help="Of the shape `custom`.", rich_help_panel="Custom shape")


app = typer.Typer(no_args_is_help=True)


@app.callback()
def _describe() -> None:
    """Time the sparse kernels against dense PyTorch. Every result is checked before it is timed."""


@app.command()
def conv(
    shapes: Annotated[str, typer.Option(help="Of conv4, resnet12, custom.")] = "conv4",
    sparsity: Annotated[str, typer.Option(help="Fractions that are pruned.")] = "0.8,0.9,0.95",
    pattern: Annotated[str, typer.Option(help="unstructured, or blocks: 16x1,4x4,8x8,1x1x3x3.")] = "unstructured",
    passes: Annotated[str, typer.Option("--pass")] = "forward,forward+backward",
    threads: Annotated[str, typer.Option(help="Default: as many as PyTorch uses.")] = "",
    backend: Annotated[str, typer.Option(help="Default: all that can run here but dense.")] = "",
    peers: Annotated[str, typer.Option(help="Others to time: compiled,torch.sparse,sparseprop.")] = "",
    rounds: Rounds = 20,
    seconds: Seconds = 1.0,
    quick: Quick = False,
    fresh_memory: FreshMemory = False,
    json_file: Json = None,
    plot_file: Plot = None,
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

    settings = _settings(rounds, seconds, quick, fresh_memory, json_file, plot_file)
    own = dict(batch=batch, in_channels=in_channels, out_channels=out_channels, size=size, kernel=kernel, stride=stride)
    own = {name: value for name, value in {**own, "input_grad": input_grad}.items() if value is not None}
    work = cases(
        _shapes(_several(shapes, str), own, quick),
        _several(pattern, str),
        _several(sparsity, float),
        _several(passes, str),
        _threads(threads),
        _backends(backend),
        _several(peers, str),
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


def _threads(text: str) -> list[int]:
    import torch

    return _several(text, int) if text else [torch.get_num_threads()]


def _backends(text: str) -> list[str]:
    from sparsemeta import backends

    here = [name for name, reasons in backends.available().items() if not reasons]
    return _several(text, str) if text else [name for name in here if name != "dense"] or here


def _several(text: str, kind: Callable[[str], T]) -> list[T]:
    """Parts between commas."""
    try:
        return [kind(part.strip()) for part in text.split(",") if part.strip()]
    except ValueError:
        expected = "whole numbers" if kind is int else "numbers"
        raise ValueError(f"expected {expected} with commas between, got {text!r}") from None


def _settings(
    rounds: int, seconds: float, quick: bool, fresh_memory: bool, json_file: Path | None, plot_file: Path | None
) -> Settings:
    from sparsemeta.bench.run import Settings
    from sparsemeta.bench.timing import Budget

    return Settings(Budget(3, 0.0, 1) if quick else Budget(rounds, seconds), fresh_memory, json_file, plot_file)
