"""Results of a block, dense and sparse, in one form; and how far they are from the exact ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import sparsemeta as sm

Results = tuple[Tensor, ...]


def compact(results: Results, model: nn.Module, ticket: sm.Ticket) -> Results:
    """Results of the dense block, with the gradients of its weights cut down to the kept ones."""
    names = [name for name, _ in model.named_parameters()]
    if len(results) == 1:
        return results
    grads = zip(names, results[-len(names) :], strict=True)
    kept = (ticket[name].compress(grad) if name in ticket else grad for name, grad in grads)
    return flat((*results[: -len(names)], *kept), len(names))


def flat(results: Results, parameters: int) -> Results:
    """Gradients of all parameters in one vector: that of a bias alone is rounding, as a norm follows."""
    if len(results) == 1:
        return results
    return *results[:-parameters], torch.cat([t.flatten() for t in results[-parameters:]])


def error(got: Results, exact: Results) -> float:
    """Largest relative difference in the norm; infinite for other shapes and for NaN."""
    if [t.shape for t in got] != [t.shape for t in exact]:
        return float("inf")
    errors = [((g.double() - e).norm() / e.norm()).item() for g, e in zip(got, exact, strict=True)]
    return max(e if e == e else float("inf") for e in errors)
