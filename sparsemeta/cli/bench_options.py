"""Options that the commands of `sparsemeta bench` have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from sparsemeta.bench.cases.conv_shapes import ConvShape
    from sparsemeta.bench.run import Settings

T = TypeVar("T")
Shapes = Annotated[str, typer.Option(help="Of conv4, resnet12, custom. Default: conv4, or what --custom says.")]
Custom = Annotated[
    str, typer.Option(help="Own shapes like 25x64x42x42:64:3:1:1: images, output channels, kernel, stride, padding.")
]
Pattern = Annotated[str, typer.Option(help="unstructured, or blocks: 16x1,4x4,8x8,1x1x3x3.")]
Sparsity = Annotated[str, typer.Option(help="Fractions that are pruned.")]
Threads = Annotated[str, typer.Option(help="Default: as many as PyTorch uses.")]
Backends = Annotated[str, typer.Option("--backend", help="Default: all that can run here but dense; also: auto.")]
Rounds = Annotated[int, typer.Option(help="Least number of rounds; each runs every way once.")]
Seconds = Annotated[float, typer.Option(help="Least time for a case.")]
Quick = Annotated[bool, typer.Option("--quick", help="Three rounds of the first shape, to try it out.")]
FreshMemory = Annotated[bool, typer.Option("--fresh-memory", help="Let the allocator give freed memory back.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write every figure to this file.")]
Plot = Annotated[Path | None, typer.Option("--plot", help="Plot the speed-up over sparsity: .png, .svg or .pdf.")]


def threads(text: str) -> list[int]:
    """Numbers of threads."""
    import torch

    return several(text, int) if text else [torch.get_num_threads()]


def backends(text: str) -> list[str]:
    """Names of backends."""
    from sparsemeta.backends import available

    here = [name for name, reasons in available().items() if not reasons and name != "triton"]  # see bench/gpu.py
    return several(text, str) if text else [name for name in here if name != "dense"] or here


def conv_shapes(names: str, custom: str, quick: bool = False) -> list[ConvShape]:
    """Shapes of convolutions from the options of that name."""
    from sparsemeta.bench.cases.conv_shapes import chosen

    return chosen(several(names or ("custom" if custom else "conv4"), str), several(custom, str), quick)


def several(text: str, kind: Callable[[str], T]) -> list[T]:
    """Parts between commas."""
    try:
        return [kind(part.strip()) for part in text.split(",") if part.strip()]
    except ValueError:
        expected = "whole numbers" if kind is int else "numbers"
        raise ValueError(f"expected {expected} with commas between, got {text!r}") from None


def settings(
    rounds: int, seconds: float, quick: bool, fresh_memory: bool, json_file: Path | None, plot_file: Path | None
) -> Settings:
    """How to measure, and where to write."""
    from sparsemeta.bench.run import Settings
    from sparsemeta.bench.timing import Budget

    return Settings(Budget(3, 0.0, 1) if quick else Budget(rounds, seconds), fresh_memory, json_file, plot_file)
