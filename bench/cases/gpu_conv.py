"""Block-sparse convolution on a GPU against cuDNN: float32, TF32 and bfloat16; eager, compiled and captured."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F

import sparsemeta as sm

from ..case import Candidate
from .conv_candidates import LAYOUTS, PASSES, Problem, Results
from .conv_shapes import ConvShape
from .masked_conv2d import ConvCase

CALLS = 20  # of which one time is taken: a single one is as short as reading the clock and waiting for the device
ARITHMETIC = {"float32": 1e-4, "tf32": 4e-3, "bfloat16": 2e-2}  # -> tolerance, relative to the largest entry


@dataclass(frozen=True)
class GpuConvCase:
    """One convolution on `device`; times are of `CALLS` calls, after which the host waits once."""

    conv: ConvCase
    arithmetic: str
    device: str = "cuda"

    @property
    def labels(self) -> dict[str, Any]:
        """Columns of the report."""
        told = {**self.conv.labels, "arithmetic": self.arithmetic, "calls": CALLS}
        return {**told, "operations": self._operations(), "bytes": self._bytes()}

    @property
    def ideal(self) -> float:
        """Weights over kept weights."""
        return self.conv.ideal

    @property
    def tolerance(self) -> float:
        """Of the arithmetic."""
        return ARITHMETIC[self.arithmetic]

    def _operations(self) -> int:
        """Of a sparse call, multiply and add being two; the gradients cost as much again each."""
        passes = 1 if self.conv.passes == "forward" else 3
        shape = self.conv.shape
        return int(passes * 2 * math.prod(shape.weight) / self.ideal * shape.batch * (shape.size // shape.stride) ** 2)

    def _bytes(self) -> int:
        """Input and output once, and for the gradients three times each; the weights are few."""
        shape, passes = self.conv.shape, 1 if self.conv.passes == "forward" else 3
        outputs = shape.out_channels * (shape.size // shape.stride) ** 2
        numbers = shape.batch * (shape.in_channels * shape.size**2 + outputs) * passes
        return numbers * (2 if self.arithmetic == "bfloat16" else 4)

    def candidates(self) -> list[Candidate]:
        """Dense and sparse in both layouts, and captured in a CUDA graph; dense also compiled."""
        _set_precision("tf32" if self.arithmetic == "tf32" else "ieee")
        problem = problem_of(self.conv)
        return [candidate for layout in LAYOUTS for candidate in self._of_layout(problem, layout)]

    def _of_layout(self, problem: Problem, layout: str) -> Iterator[Candidate]:
        dtype = torch.bfloat16 if self.arithmetic == "bfloat16" else torch.float32
        format = {"device": self.device, "dtype": dtype, "memory_format": LAYOUTS[layout]}
        x, weight, grad = (t.to(**format) for t in (problem.x, problem.weight, problem.grad))
        values = problem.pattern.compress(weight)
        dense, sparse = _dense(problem.shape), _sparse(problem)
        ways = {f"{layout}": ("dense", problem.runner(dense, x, weight, grad))}
        ways[f"triton {layout}"] = "sparse", problem.runner(sparse, x, values, grad)
        if self.device == "cuda":
            compiled = _compiled(problem.shape, layout, self.arithmetic, problem.passes)
            ways[f"compiled {layout}"] = "dense", problem.runner(compiled, x, weight, grad)
            for role, function, w in (("dense", dense, weight), ("sparse", sparse, values)):
                make = functools.partial(problem.runner, function, x, w, grad)
                ways[f"{role} {layout} graphed"] = role, _Captured(make)
        for name, (role, run) in ways.items():
            yield Candidate(name, role, _repeated(run, self.device), functools.partial(_error, problem, role))


@functools.lru_cache(maxsize=1)  # one for every arithmetic: on the CPU, in float64, it takes a second or two
def problem_of(conv: ConvCase) -> Problem:
    """Operands, and exact results."""
    return Problem.make(conv.shape, conv.pattern(), conv.passes)


class _Captured:
    """What `make` makes, captured at its first call and replayed from then on."""

    def __init__(self, make: Callable[[], Callable[[], Results]]):
        self.make, self.graph, self.results = make, None, ()

    def __call__(self) -> Results:
        if self.graph is None:
            self._capture()
        self.graph.replay()
        return self.results

    def _capture(self) -> None:
        run, stream = self.make(), torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # compiles, chooses cuDNN's algorithm, makes tables
                run()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.results = run()


def _repeated(run: Callable[[], Results], device: str) -> Callable[[], Results]:
    def repeated() -> Results:
        for _ in range(CALLS):
            results = run()
        if device == "cuda":
            torch.cuda.synchronize()
        return results

    return repeated


def _error(problem: Problem, role: str, results: Results) -> float:
    results = tuple(t.cpu() for t in results)
    return problem.error(problem.kept(results) if role == "dense" else results)


def _dense(shape: ConvShape) -> Callable:
    return lambda x, weight: F.conv2d(x, weight, None, shape.stride, shape.padding)


@functools.cache  # one for all sparsities, which are the same to it; of its own for what it would recompile for
def _compiled(shape: ConvShape, layout: str, arithmetic: str, passes: str) -> Callable:
    return torch.compile(_dense(shape), dynamic=False)


def _sparse(problem: Problem) -> Callable:
    shape = problem.shape
    options = {"stride": shape.stride, "padding": shape.padding, "backend": "triton"}
    return lambda x, values: sm.masked_conv2d(x, values, problem.pattern, **options)


def _set_precision(precision: str) -> None:
    cudnn = torch.backends.cudnn
    cudnn.benchmark = True  # cuDNN's fastest, not its first guess
    if hasattr(cudnn, "conv"):
        cudnn.conv.fp32_precision = precision
    else:  # torch before 2.9
        cudnn.allow_tf32 = precision == "tf32"


def cases(shapes: list[ConvShape], structures: list[str], sparsities: list[float], device: str) -> list[GpuConvCase]:
    """Every combination, both passes, every arithmetic."""
    made = itertools.product(shapes, structures, PASSES, sparsities, ARITHMETIC)
    conv = ConvCase(shapes[0], structures[0], 0.9, PASSES[0], 1, ("triton",))
    return [
        GpuConvCase(replace(conv, shape=shape, structure=structure, passes=passes, sparsity=sparsity), kind, device)
        for shape, structure, passes, sparsity, kind in made
    ]
