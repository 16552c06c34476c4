"""Unstructured convolutions on a GPU by the CUDA kernels, against cuDNN in float32 and TF32."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sparsemeta.backends import cuda
from sparsemeta.ops.conv import Conv

from ..case import Candidate
from .conv_candidates import PASSES, Problem, Results
from .conv_shapes import ConvShape
from .gpu_conv import GpuConvCase, _Captured, _error, _repeated, problem_of
from .masked_conv2d import ConvCase

ARITHMETIC = "float32", "tf32"  # of cuDNN; the sparse kernels multiply in float32 whatever it may do


@dataclass(frozen=True)
class GpuUnstructuredCase(GpuConvCase):
    """One convolution; times are of `gpu_conv.CALLS` calls, after which the host waits once."""

    def candidates(self) -> list[Candidate]:
        """Dense as for blocks; sparse by a table and by generated code, eager and captured in a CUDA graph."""
        found = [candidate for candidate in super().candidates() if candidate.role == "dense"]
        problem = problem_of(self.conv)
        x, weight, grad = (t.to(self.device) for t in (problem.x, problem.weight, problem.grad))
        for way in self._ways(problem):
            make = partial(problem.runner, _sparse(problem, way), x, problem.pattern.compress(weight), grad)
            runs: dict[str, Callable[[], Results]] = {f"cuda {way}": make()}
            if self.device == "cuda":
                runs[f"cuda {way} graphed"] = _Captured(make)
            error = partial(_error, problem, "sparse")
            found += [Candidate(name, "sparse", _repeated(run, self.device), error) for name, run in runs.items()]
        return found

    def _ways(self, problem: Problem) -> list[str]:
        reasons = cuda.generated_reasons(_conv(problem), torch.device(self.device))
        return [way for way in cuda.WAYS if way != "generated" or not reasons]


class _ByWay(torch.autograd.Function):
    """`x, values -> y`, forward and input gradient by one way of the backend; first order only."""

    @staticmethod
    def forward(ctx, x, values, conv, way):
        ctx.save_for_backward(x, values)
        ctx.conv, ctx.way = conv, way
        return cuda.masked_conv2d(x, values, None, conv, way)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        (x, values), (to_x, *_) = ctx.saved_tensors, ctx.needs_input_grad
        x_grad = cuda.masked_conv2d_input_grad(g, values, *x.shape[-2:], ctx.conv, ctx.way) if to_x else None
        return x_grad, cuda.masked_conv2d_weight_grad(g, x, ctx.conv), None, None


def _sparse(problem: Problem, way: str) -> Callable[[Tensor, Tensor], Tensor]:
    conv = _conv(problem)
    return lambda x, values: _ByWay.apply(x, values, conv, way)


def _conv(problem: Problem) -> Conv:
    return Conv.make(problem.pattern, problem.shape.stride, problem.shape.padding, 1, 1, "cuda")


def cases(shapes: Sequence[ConvShape], sparsities: Sequence[float], device: str) -> list[GpuUnstructuredCase]:
    """Every combination, both passes, both arithmetics."""
    return [
        GpuUnstructuredCase(ConvCase(shape, "unstructured", sparsity, passes, 1, ("cuda",)), arithmetic, device)
        for shape, passes, sparsity, arithmetic in itertools.product(shapes, PASSES, sparsities, ARITHMETIC)
    ]
