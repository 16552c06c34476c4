"""Problems whose operands are exact in bfloat16, so that only sums and results round."""

from __future__ import annotations

import torch
from conv_cases import Case
from problem import Problem, dense, derivatives, problem
from torch import Tensor


def rounded(case: Case) -> tuple[Problem, dict[str, Tensor]]:
    """The problem in bfloat16, and the definition's derivatives of those same numbers in float64."""
    p = problem(case, torch.bfloat16)
    bias = None if p.bias is None else _wide(p.bias)
    same = Problem(_wide(p.x), _wide(p.values), bias, _wide(p.g), [t.double() for t in p.cotangents])
    return p, derivatives(dense(case), same)


def _wide(t: Tensor) -> Tensor:
    return t.detach().double().requires_grad_()
