"""The same convolution by dense PyTorch and by sparsemeta: how each is called, what it returns, what is exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

import sparsemeta as sm

from ..case import Candidate, relative_error
from .choices import tuned
from .conv_shapes import ConvShape

PASSES = ("forward", "forward+backward")
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
Results = tuple[Tensor, ...]


@dataclass(frozen=True)
class Problem:
    """Operands of a case in float32, and its exact results: output and, with the backward pass, the gradients.

    Attributes:
        x: `[N, C, H, W]`; weight: `[O, C, k, k]` with zeros where pruned; grad: of the output, `[N, O, H', W']`.
        exact: output, input gradient (not for a first layer), gradient `[nnz]` of the kept weights; of float64.
    """

    shape: ConvShape
    pattern: sm.Pattern
    passes: str
    x: Tensor
    weight: Tensor
    grad: Tensor
    exact: Results

    @classmethod
    def make(cls, shape: ConvShape, pattern: sm.Pattern, passes: str) -> Problem:
        """Random operands, the same for every run."""
        normal = partial(torch.randn, generator=torch.Generator().manual_seed(0))
        x = normal(shape.batch, shape.in_channels, shape.size, shape.size)
        weight = normal(shape.weight) * pattern.mask()
        y = F.conv2d(x, weight, None, shape.stride, shape.padding)
        unchecked = cls(shape, pattern, passes, x, weight, normal(y.shape), ())
        exact = unchecked.runner(unchecked.conv, *(t.double() for t in (x, weight, unchecked.grad)))()
        return cls(shape, pattern, passes, x, weight, unchecked.grad, unchecked.kept(exact))

    def conv(self, x: Tensor, weight: Tensor) -> Tensor:
        """The definition."""
        return F.conv2d(x, weight, None, self.shape.stride, self.shape.padding)

    def runner(
        self, function: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor, grad: Tensor
    ) -> Callable[[], Results]:
        """One pass of `function(x, weight)`, through autograd as a training step goes."""
        x = x.detach().requires_grad_(self.shape.input_grad)
        weight = weight.detach().requires_grad_()
        wanted = [t for t in (x, weight) if t.requires_grad]

        def forward() -> Results:
            with torch.no_grad():
                return (function(x, weight),)

        def forward_backward() -> Results:
            y = function(x, weight)
            return (y.detach(), *torch.autograd.grad(y, wanted, grad))

        return forward if self.passes == "forward" else forward_backward

    def kept(self, results: Results) -> Results:
        """Results with the gradient of a dense weight cut down to that of the kept weights."""
        return results if len(results) == 1 else (*results[:-1], self.pattern.compress(results[-1]))

    def error(self, results: Results) -> float:
        """Relative error of results whose last is the gradient `[nnz]`."""
        return relative_error(results, self.exact)


def dense(
    problem: Problem, layout: str, name: str | None = None, conv: Callable[[Tensor, Tensor], Tensor] | None = None
) -> Candidate:
    """PyTorch with all operands and results in that memory format, so that it has nothing to convert."""
    operands = [t.contiguous(memory_format=LAYOUTS[layout]) for t in (problem.x, problem.weight, problem.grad)]
    run = problem.runner(conv or problem.conv, *operands)
    return Candidate(name or layout, "dense", run, lambda results: problem.error(problem.kept(results)))


def sparse(problem: Problem, backend: str) -> Candidate:
    """`sm.masked_conv2d` from contiguous to contiguous, whatever the layout is inside."""

    shape, pattern = problem.shape, problem.pattern

    def make(name: str) -> Callable[[], Results]:
        def conv(x: Tensor, values: Tensor) -> Tensor:
            return sm.masked_conv2d(x, values, pattern, stride=shape.stride, padding=shape.padding, backend=name)

        return problem.runner(conv, problem.x, pattern.compress(problem.weight), problem.grad)

    return Candidate(backend, "sparse", tuned(make, backend), problem.error)
