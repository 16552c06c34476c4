"""One convolution with weights of each task on a GPU: sparse in one launch, dense one by one, by vmap, and grouped."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import sparsemeta as sm

from ..case import Candidate, relative_error
from .conv_shapes import ConvShape
from .gpu_conv import ARITHMETIC, CALLS, _Captured, _repeated, _set_precision
from .masked_conv2d import ConvCase


@dataclass(frozen=True)
class GpuTasksCase:
    """Forward and backward pass of `tasks` batches, each through values of its own over one pattern."""

    conv: ConvCase
    arithmetic: str
    tasks: int
    device: str = "cuda"

    @property
    def labels(self) -> dict[str, Any]:
        """Columns of the report."""
        return {**self.conv.labels, "tasks": self.tasks, "arithmetic": self.arithmetic, "calls": CALLS}

    @property
    def ideal(self) -> float:
        """Weights over kept weights."""
        return self.conv.ideal

    @property
    def tolerance(self) -> float:
        """Of the arithmetic."""
        return ARITHMETIC[self.arithmetic]

    def candidates(self) -> list[Candidate]:
        """Eager and captured in a CUDA graph, with the channels last."""
        _set_precision("tf32" if self.arithmetic == "tf32" else "ieee")
        shape, pattern = self.conv.shape, self.conv.pattern()
        normal = partial(torch.randn, generator=torch.Generator().manual_seed(0))
        x = normal(self.tasks, shape.batch, shape.in_channels, shape.size, shape.size)
        values = normal(self.tasks, pattern.nnz)
        out = shape.size // shape.stride
        g = normal(self.tasks, shape.batch, shape.out_channels, out, out)
        error = _exact(pattern, _pass(_one_by_one(shape), *self._placed(x, pattern.expand(values), g, torch.float64))())
        dtype = torch.bfloat16 if self.arithmetic == "bfloat16" else torch.float32
        weight = self._placed(x, pattern.expand(values), g, dtype)
        ways: dict[str, tuple[str, Callable, tuple[Tensor, ...]]] = {
            "one by one": ("dense", _one_by_one(shape), weight),
            "vmap": ("dense", torch.func.vmap(_conv(shape)), weight),
            "grouped": ("dense", _grouped(shape), weight),
            "triton": ("sparse", _sparse(shape, pattern), self._placed(x, values, g, dtype)),
        }
        return [c for name, way in ways.items() for c in self._ways(name, *way, error)]

    def _placed(self, x: Tensor, w: Tensor, g: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
        x, g = (t.movedim(2, -1).contiguous().movedim(-1, 2).to(self.device, dtype) for t in (x, g))
        return x, w.to(self.device, dtype), g

    def _ways(self, name: str, role: str, function: Callable, given: tuple, error: Callable) -> list[Candidate]:
        make = partial(_pass, function, *given)
        runs = {name: make()} | ({f"{name} graphed": _Captured(make)} if self.device == "cuda" else {})
        return [Candidate(n, role, _repeated(run, self.device), partial(error, role)) for n, run in runs.items()]


def _conv(shape: ConvShape) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, weight: F.conv2d(x, weight, None, shape.stride, shape.padding)


def _one_by_one(shape: ConvShape) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, weight: torch.stack([_conv(shape)(*task) for task in zip(x, weight, strict=True)])


def _grouped(shape: ConvShape) -> Callable[[Tensor, Tensor], Tensor]:
    """The tasks as groups of channels."""

    def grouped(x: Tensor, weight: Tensor) -> Tensor:
        images = x.transpose(0, 1).flatten(1, 2)
        y = F.conv2d(images, weight.flatten(0, 1), None, shape.stride, shape.padding, groups=len(weight))
        return y.unflatten(1, (len(weight), -1)).transpose(0, 1)

    return grouped


def _sparse(shape: ConvShape, pattern: sm.Pattern) -> Callable[[Tensor, Tensor], Tensor]:
    options = {"stride": shape.stride, "padding": shape.padding, "backend": "triton"}
    return lambda x, values: sm.masked_conv2d(x, values, pattern, **options)


def _pass(function: Callable, x: Tensor, w: Tensor, g: Tensor) -> Callable[[], tuple[Tensor, ...]]:
    x, w = x.detach().requires_grad_(), w.detach().requires_grad_()

    def run() -> tuple[Tensor, ...]:
        y = function(x, w)
        return (y.detach(), *torch.autograd.grad(y, (x, w), g))

    return run


def _exact(pattern: sm.Pattern, results: tuple[Tensor, ...]) -> Callable[[str, tuple[Tensor, ...]], float]:
    """Error of results against these, of which the gradient of the weight is cut down to the kept ones."""
    kept = *(t.cpu() for t in results[:2]), pattern.compress(results[2].cpu())

    def error(role: str, got: tuple[Tensor, ...]) -> float:
        y, to_x, to_w = (t.cpu() for t in got)
        return relative_error([y, to_x, pattern.compress(to_w) if role == "dense" else to_w], kept)

    return error


def cases(
    shapes: Sequence[ConvShape], structures: Sequence[str], sparsities: Sequence[float], tasks: int, device: str
) -> list[GpuTasksCase]:
    """Every combination, in TF32 and bfloat16."""
    made = itertools.product(shapes, structures, sparsities, ("tf32", "bfloat16"))
    return [
        GpuTasksCase(ConvCase(shape, structure, sparsity, "forward+backward", 1, ("triton",)), kind, tasks, device)
        for shape, structure, sparsity, kind in made
    ]
