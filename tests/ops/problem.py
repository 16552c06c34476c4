"""The operands of a case, its derivatives to second order, and how they compare with those of the definition."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from conv_cases import Case
from definition import dense_conv2d, generator_of, mask_of, positions_of
from layouts import LAYOUTS
from tolerances import assert_close
from torch import Tensor

import sparsemeta as sm

OPERATIONS = {  # what computes each derivative, for the tolerance
    "y": "masked_conv2d",
    "gradient of x": "masked_conv2d_input_grad",
    "gradient of values": "masked_conv2d_weight_grad",
    "gradient of bias": "bias gradient",
    "second derivative of x": "masked_conv2d_input_grad",
    "second derivative of values": "masked_conv2d_weight_grad",
    "second derivative of g": "masked_conv2d",
}


@dataclass
class Problem:
    """Operands, the gradient of the output, and the vectors with which the operands' gradients are contracted."""

    x: Tensor
    values: Tensor
    bias: Tensor | None
    g: Tensor
    cotangents: list[Tensor]  # of the gradients of x, values and bias

    @property
    def operands(self) -> list[Tensor]:
        return [t for t in (self.x, self.values, self.bias) if t is not None]


def problem(case: Case, dtype: torch.dtype) -> Problem:
    """The same numbers in every dtype: they are drawn in float32."""
    generator = generator_of(case)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator).to(dtype)

    tasks = () if case.tasks is None else (case.tasks,)
    size = *(() if "x" in case.shared else tasks), case.batch, case.weight[1] * case.groups, *case.image
    x, values = LAYOUTS[case.x](draw, *size), draw(*tasks, int(mask_of(case).sum()))
    bias = draw(*(() if "bias" in case.shared else tasks), case.weight[0]) if case.bias else None
    g = LAYOUTS[case.g](draw, *tasks, case.batch, case.weight[0], *_output_size(case))
    cotangents = [LAYOUTS[case.x](draw, *size), *(draw(*t.shape) for t in (values, bias) if t is not None)]
    made = Problem(x, values, bias, g, cotangents)
    for t in (*made.operands, g):
        t.requires_grad_()
    return made


def derivatives(conv: Callable[..., Tensor], p: Problem) -> dict[str, Tensor]:
    """Value, gradients, and the gradients of a scalar function of the gradients."""
    y = conv(p.x, p.values, p.bias)
    first = torch.autograd.grad(y, p.operands, p.g, create_graph=True)
    # PyTorch does not connect what is empty: it has no derivative, which is that of a sum of nothing.
    second = torch.autograd.grad(first, (p.x, p.values, p.g), p.cotangents, materialize_grads=True)
    names = [f"gradient of {name}" for name in ("x", "values", "bias")[: len(first)]]
    names += [f"second derivative of {name}" for name in ("x", "values", "g")]
    return {"y": y.detach()} | {name: t.detach() for name, t in zip(names, first + second, strict=True)}


def masked(case: Case, backend: str, pattern: sm.Pattern | None = None) -> Callable[..., Tensor]:
    """`masked_conv2d` of the case as a function of x, values and bias."""
    pattern = pattern or sm.Pattern.from_mask(mask_of(case), block=case.block)
    return lambda x, values, bias: sm.masked_conv2d(x, values, pattern, bias, backend=backend, **case.arguments)


def masked_arguments(case: Case) -> dict:
    """The case's pattern and the arguments of its convolution."""
    return {"pattern": sm.Pattern.from_mask(mask_of(case), block=case.block), **case.arguments}


def dense(case: Case) -> Callable[..., Tensor]:
    """The definition of the case as a function of x, values and bias."""
    positions = positions_of(mask_of(case), case.block)
    return lambda x, values, bias: dense_conv2d(x, values, bias, positions, case.weight, **case.arguments)


@functools.lru_cache(maxsize=1)  # the table runs every backend and dtype of a case in a row
def expected(case: Case) -> dict[str, Tensor]:
    """Derivatives of the definition, in float64."""
    p = problem(case, torch.float64)
    if case.tasks != 0:
        return derivatives(dense(case), p)
    of = [p.g, *p.operands, p.x, p.values, p.g]  # of no task every derivative is empty, or a sum of nothing
    return dict(zip(OPERATIONS, map(torch.zeros_like, of), strict=True))


def assert_equals_definition(case: Case, actual: dict[str, Tensor], dtype: torch.dtype) -> None:
    """Every derivative in `actual` has the case's dtype, shape and, within its tolerance, the definition's value."""
    for name, wanted in expected(case).items():
        assert actual[name].dtype == dtype
        assert_close(actual[name], wanted, OPERATIONS[name], name)


def _output_size(case: Case) -> torch.Size:
    x = torch.empty(1, case.weight[1] * case.groups, *case.image, device="meta")
    return torch.nn.functional.conv2d(x, torch.empty(case.weight, device="meta"), **case.arguments).shape[-2:]
