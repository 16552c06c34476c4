"""Results of a block, dense and sparse, in one form; and how far they are from the exact ones."""

from __future__ import annotations

import torch
from torch import Tensor

import sparsemeta as sm

Results = tuple[Tensor, ...]


def compact(results: Results, pattern: sm.Pattern) -> Results:
    """Results of the dense block, with the gradient of its weight cut down to the kept ones."""
    if len(results) == 1:
        return results
    *head, weight, bias, gamma, beta = results
    return flat((*head, pattern.compress(weight), bias, gamma, beta))


def flat(results: Results) -> Results:
    """Gradients of all parameters in one vector: that of the bias alone is rounding, as a norm follows."""
    return results if len(results) == 1 else (*results[:-4], torch.cat([t.flatten() for t in results[-4:]]))


def error(got: Results, exact: Results) -> float:
    """Largest relative difference in the norm; infinite for other shapes and for NaN."""
    if [t.shape for t in got] != [t.shape for t in exact]:
        return float("inf")
    errors = [((g.double() - e).norm() / e.norm()).item() for g, e in zip(got, exact, strict=True)]
    return max(e if e == e else float("inf") for e in errors)
