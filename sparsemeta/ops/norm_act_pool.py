"""Batch norm, residual sum, (leaky) ReLU and max-pooling in one pass, with derivatives of every order.

Between the convolutions of a few-shot network these cost more than a sparse convolution does, and their double backward
in PyTorch more still. First and second derivatives are kernels; a third is PyTorch's, of the same formula.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from operator import add
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from .. import backends
from .norm_act_pool_function import NormActPool
from .norm_act_pool_tasks import TasksNorm


class Norm(NamedTuple):
    """Operands of a batch norm: `F.batch_norm(x, mean, var, weight, bias, training=mean is None)`.

    Attributes:
        x: `[N, C, H, W]`.
        weight, bias: `[C]`, gamma and beta.
        mean, var: `[C]`, constants; None: those of `x`.
    """

    x: Tensor
    weight: Tensor
    bias: Tensor
    mean: Tensor | None = None
    var: Tensor | None = None


def norm_act_pool(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5, slope: float = 0.0, pool: int = 1,
    backend: str | None = None, *, mean: Tensor | None = None, var: Tensor | None = None,
    residual: Tensor | Norm | None = None,
) -> Tensor:
    """Batch norm, residual sum, activation, and max-pooling.

    Equivalent to `F.max_pool2d(F.leaky_relu(F.batch_norm(x, mean, var, weight, bias, mean is None, eps=eps) + residual,
    slope), pool)`, where a `residual` that is a `Norm` stands for its own `F.batch_norm`.

    Args:
        x: `[N, C, H, W]`.
        weight, bias: `[C]`, gamma and beta.
        eps: added to the variance, of a normalised residual too.
        slope: of the activation for negative inputs; 0 is ReLU, 1 none.
        pool: 2, or 1 for no pooling.
        backend: `"dense"`, `"cpu"`, `"triton"`, or `None` / `"auto"` for the fastest that can run.
        mean, var: `[C]`, statistics to normalise with, which are constants; None: those of `x`.
        residual: `[N, C, H, W]`, or a `sparsemeta.ops.Norm` of that shape; None: nothing is added.

    Returns:
        `[N, C, H // pool, W // pool]`.

    Raises:
        ValueError: shapes that do not belong together, fewer than two values for each channel where their statistics
            are wanted, another `pool`, a negative `slope`.
        RuntimeError: the named backend cannot run here; the reasons are listed.
    """
    norms = [Norm(x, weight, bias, mean, var)]
    if isinstance(residual, Norm):
        norms.append(residual)
    for norm in norms:
        _check_norm(norm, x.shape)
    _check_rest(x, residual, slope, pool)
    operands = [t for norm in norms for t in norm if t is not None]
    chosen = backends.select(backend, *operands, *([residual] if isinstance(residual, Tensor) else []))
    plain = residual is None and mean is None
    chosen = backends.choice.norm_act_pool_backend(x, pool, plain) if chosen == "auto" else chosen
    forward_mode = forward_ad._current_level >= 0  # for which the kernels have no rule
    if chosen == "dense" or forward_mode or torch.compiler.is_compiling():
        return definition(norms, residual, eps, slope, pool)
    backends.check_has(chosen, "norm_act_pool")
    if chosen == "triton":
        backends.check_norm(plain)
        return TasksNorm.apply(x, weight, bias, eps, slope, pool, chosen)[0]
    branches = [t for norm in norms for t in _branch(norm, eps)]
    if isinstance(residual, Tensor):
        branches += residual, None, None, None
    return NormActPool.apply(_sum(norm.bias for norm in norms), eps, slope, pool, *branches)[0]


def definition(norms: Sequence[Norm], residual: Tensor | Norm | None, eps: float, slope: float, pool: int) -> Tensor:
    """`norm_act_pool` in plain PyTorch."""
    terms = [F.batch_norm(x, mean, var, weight, bias, mean is None, eps=eps) for x, weight, bias, mean, var in norms]
    z = _sum([*terms, residual] if isinstance(residual, Tensor) else terms)
    z = F.relu(z) if slope == 0 else F.leaky_relu(z, slope)
    return z if pool == 1 else F.max_pool2d(z, pool)


def _sum(terms: Iterable[Tensor]) -> Tensor:
    return reduce(add, terms)


def _branch(norm: Norm, eps: float) -> tuple[Tensor | None, ...]:
    """A branch of `NormActPool`."""
    return norm.x, norm.weight, norm.mean, None if norm.var is None else (norm.var + eps).rsqrt()


def _check_norm(norm: Norm, shape: torch.Size) -> None:
    x, *rows = norm
    if x.dim() != 4 or x.shape != shape or any(t.shape != shape[1:2] for t in rows if t is not None):
        named = zip(Norm._fields, norm, strict=True)
        got = ", ".join(f"{name} {tuple(t.shape)}" for name, t in named if t is not None)
        raise ValueError(
            f"expected x [N, C, H, W], one shape for all, and the rest [C], got {got}; "
            "give one weight and bias for each channel"
        )
    if (norm.mean is None) != (norm.var is None):
        raise ValueError("expected mean and var, or neither; give both to normalise with constants")
    if norm.mean is None and x.numel() <= x.shape[1]:
        raise ValueError(f"expected more than one value for each channel, got x {tuple(x.shape)}; give a larger batch")


def _check_rest(x: Tensor, residual: Tensor | Norm | None, slope: float, pool: int) -> None:
    if residual is not None and not isinstance(residual, (Tensor, Norm)):
        raise TypeError(f"expected residual to be a Tensor or a Norm, got {type(residual).__name__}")
    if isinstance(residual, Tensor) and residual.shape != x.shape:
        got = tuple(residual.shape)
        raise ValueError(f"expected a residual of the shape of x, {tuple(x.shape)}, got {got}; project it")
    if pool not in (1, 2) or min(x.shape[2:]) < pool:
        raise ValueError(f"expected pool to be 1 or 2 and not larger than the image {tuple(x.shape[2:])}, got {pool}")
    if slope < 0:
        raise ValueError(f"expected a slope of at least 0, got {slope}; use PyTorch for a falling activation")
