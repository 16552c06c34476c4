"""Batch norm, activation and pooling by the Triton kernels on a GPU against PyTorch, eager, compiled and captured."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sparsemeta.ops.norm_act_pool import norm_act_pool

from ..case import Candidate, relative_error
from .conv_candidates import LAYOUTS
from .gpu_conv import CALLS, _Captured, _repeated

TOLERANCES = {"float32": 1e-4, "bfloat16": 5e-2}  # of the largest entry


@dataclass(frozen=True)
class GpuNormCase:
    """Forward and backward pass of `[batch, channels, size, size]`; nothing is pruned, the ratio is of fusing alone."""

    batch: int
    channels: int
    size: int
    arithmetic: str
    device: str = "cuda"
    pool: int = 2
    ideal: float = 1.0

    @property
    def labels(self) -> dict[str, Any]:
        """Columns of the report; the bytes are those of one call."""
        shape = f"{self.batch}x{self.channels}x{self.size}x{self.size}"
        told = {"norm_act_pool": shape, "arithmetic": self.arithmetic, "threads": 1, "sparsity": 0.0, "calls": CALLS}
        return {**told, "bytes": self._bytes()}

    @property
    def tolerance(self) -> float:
        """Of the arithmetic."""
        return TOLERANCES[self.arithmetic]

    def candidates(self) -> list[Candidate]:
        """Every way in both layouts."""
        normal = partial(torch.randn, generator=torch.Generator().manual_seed(0))
        half = self.size // self.pool
        operands = [normal(self.batch, self.channels, self.size, self.size), *normal(2, self.channels)]
        g = normal(self.batch, self.channels, half, half)
        exact = _pass(_dense, self.pool, *(t.double() for t in (*operands, g)))()
        return [c for layout in LAYOUTS for c in self._of_layout(layout, operands, g, exact)]

    def _of_layout(
        self, layout: str, operands: list[Tensor], g: Tensor, exact: tuple[Tensor, ...]
    ) -> Iterator[Candidate]:
        place = {"device": self.device, "dtype": getattr(torch, self.arithmetic)}
        x, g = (t.to(**place, memory_format=LAYOUTS[layout]) for t in (operands[0], g))
        given = x, *(t.to(**place) for t in operands[1:]), g
        ways = {layout: ("dense", _dense), f"triton {layout}": ("sparse", _triton)}
        if self.device == "cuda":
            ways[f"compiled {layout}"] = "dense", torch.compile(_dense, dynamic=False)
        for name, (role, function) in ways.items():
            run = _pass(function, self.pool, *given)
            yield Candidate(name, role, _repeated(run, self.device), partial(_error, exact))
            if self.device == "cuda":
                graphed = _repeated(_Captured(partial(_pass, function, self.pool, *given)), self.device)
                yield Candidate(f"{name} graphed", role, graphed, partial(_error, exact))

    def _bytes(self) -> int:
        """By the kernels: x four times, its gradient, the outputs, their gradient twice, and the codes three times."""
        size = 2 if self.arithmetic == "bfloat16" else 4
        pixels, cells = (self.batch * self.channels * side**2 for side in (self.size, self.size // self.pool))
        return pixels * size * 5 + cells * (size * 3 + 3)


def _dense(x: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float, pool: int) -> Tensor:
    return norm_act_pool(x, weight, bias, eps, slope, pool, backend="dense")


def _triton(x: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float, pool: int) -> Tensor:
    return norm_act_pool(x, weight, bias, eps, slope, pool, backend="triton")


def _pass(function: Callable, pool: int, *operands: Tensor) -> Callable[[], tuple[Tensor, ...]]:
    *leaves, g = operands
    leaves = [t.detach().requires_grad_() for t in leaves]

    def run() -> tuple[Tensor, ...]:
        y = function(*leaves, 1e-5, 0.0, pool)
        return (y.detach(), *torch.autograd.grad(y, leaves, g))

    return run


def _error(exact: Sequence[Tensor], results: Sequence[Tensor]) -> float:
    return relative_error([t.cpu() for t in results], exact)


def cases(shapes: Sequence[tuple[int, int, int]], device: str) -> list[GpuNormCase]:
    """Every shape (batch, channels, size) in every arithmetic."""
    return [GpuNormCase(*shape, arithmetic, device) for shape, arithmetic in itertools.product(shapes, TOLERANCES)]
