"""`sparsemeta tune`: which is faster, sparse kernels or dense PyTorch, for each layer and pass."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from sparsemeta.cli import bench_options as options
from sparsemeta.cli.recipe_options import Device

if TYPE_CHECKING:
    import torch
    from torch import nn

    from sparsemeta.backends.tune_store import Key, Times
    from sparsemeta.bench.cases.conv_shapes import ConvShape
    from sparsemeta.bench.cases.masked_conv2d import ConvCase


def tune(
    shapes: Annotated[str, typer.Option(help="Convolutions to measure: of conv4, resnet12, custom.")] = "",
    custom: options.Custom = "",
    model: Annotated[str, typer.Option(help="Whole models to measure: of conv4, resnet12.")] = "",
    batch: Annotated[str, typer.Option(help="Images at once, for the models.")] = "25,75",
    image_size: Annotated[int, typer.Option(help="Side of the images, for the models.")] = 84,
    channels: Annotated[int, typer.Option(help="Of the images, for the models.")] = 3,
    sparsity: options.Sparsity = "0.8,0.9,0.95",
    pattern: options.Pattern = "unstructured",
    threads: options.Threads = "",
    device: Device = "cpu",
    clear: Annotated[bool, typer.Option("--clear", help="First forget all that was measured.")] = False,
) -> None:
    """Measure what `backend="auto"` shall take, and keep it for all processes. Without shapes or model: show it."""
    import torch  # here and below, so that `sparsemeta --help` does not wait for it

    from sparsemeta import backends
    from sparsemeta.backends.tune_store import store

    on_gpu = torch.device(device).type == "cuda"
    sparse = ("triton", "cuda") if on_gpu else ("cpu",)
    if all(reasons := [backends.available()[name] for name in sparse]):
        raise ValueError(f"expected kernels to choose from on {device}, got none: {'; '.join(sum(reasons, []))}")
    structures, sparsities = options.several(pattern, str), options.several(sparsity, float)
    named = options.conv_shapes(shapes, custom) if shapes or custom else []
    layouts = [torch.contiguous_format, torch.channels_last] if on_gpu else [torch.contiguous_format]
    calls = _convolutions(named, structures, sparsities)
    images = channels, image_size, options.several(batch, int)
    calls += _models(options.several(model, str), images, structures, sparsities)
    calls = [partial(call, torch.device(device), layout) for call, layout in itertools.product(calls, layouts)]
    if clear:
        store().clear()
    found = {}
    for count, call in itertools.product([1] if on_gpu else options.threads(threads), calls):
        torch.set_num_threads(count)
        found |= backends.tune(call)
    _show(found if calls else store().times)


def _convolutions(shapes: list[ConvShape], structures: list[str], sparsities: list[float]) -> list[Callable]:
    from sparsemeta.bench.cases.masked_conv2d import cases

    found = cases(shapes, structures, sparsities, ["forward+backward"]) if shapes else []
    return [partial(_convolve, case) for case in found]


def _convolve(case: ConvCase, device: torch.device, layout: torch.memory_format) -> None:
    import torch

    import sparsemeta as sm

    shape, pattern = case.shape, case.pattern()
    x = torch.zeros(shape.batch, shape.in_channels, shape.size, shape.size, device=device)
    x = x.contiguous(memory_format=layout).requires_grad_(shape.input_grad)
    values = torch.zeros(pattern.nnz, device=device, requires_grad=True)
    sm.masked_conv2d(x, values, pattern, stride=shape.stride, padding=shape.padding).sum().backward()


def _models(
    names: list[str], images: tuple[int, int, list[int]], structures: list[str], sparsities: list[float]
) -> list[Callable]:
    import sparsemeta as sm
    from sparsemeta.bench.cases.choices import check_names, drawn_ticket

    channels, size, batches = images
    kinds = {"conv4": sm.models.Conv4, "resnet12": sm.models.ResNet12}
    check_names("model", names, kinds)
    found = []
    for name, structure, sparsity in itertools.product(names, structures, sparsities):
        dense = kinds[name](in_channels=channels, image_size=size)
        model = sm.sparsify(dense, drawn_ticket(dense, sparsity, structure))
        found += [partial(_train, model, (batch, channels, size, size)) for batch in batches]
    return found


def _train(model: nn.Module, images: tuple[int, ...], device: torch.device, layout: torch.memory_format) -> None:
    import torch

    model.to(device)(torch.rand(images, device=device).contiguous(memory_format=layout)).sum().backward()


def _show(found: Mapping[Key, Times]) -> None:
    from sparsemeta.backends.tune_store import fastest

    table = Table()
    for name in ("pass", "images", "weight", "block", "density", "on", "dense", "sparse", "choice"):
        table.add_column(name, justify="right" if name in ("density", "dense", "sparse") else "left")
    for key, times in sorted(found.items()):
        sparse = {route: s for route, s in times.items() if route.partition(" ")[0] in ("cpu", "triton", "cuda")}
        dense = [s for route, s in times.items() if route not in sparse]
        table.add_row(*_described(key), _told(dense), _told(sparse.values()), fastest(times))
    console = Console()
    console.width = console.width if console.is_terminal else 1000
    console.print(table if found else "nothing has been measured on this machine: see sparsemeta tune --help")


def _described(key: Key) -> Iterator[str]:
    yield key.operation
    images = "x".join(map(str, key.images)), "" if key.dtype == "float32" else key.dtype, key.layout
    yield " ".join(filter(None, images))
    stride = "" if key.stride == (1, 1) else f" / {key.stride[0]}x{key.stride[1]}"
    yield "x".join(map(str, key.weight)) + stride
    yield "x".join(map(str, key.block))
    yield f"{100 * key.density:g} %"
    yield key.gpu or f"{key.threads} thread{'s' * (key.threads > 1)}"


def _told(seconds: Iterable[float]) -> str:
    return f"{min(seconds) * 1e3:.3g} ms" if seconds else "-"
