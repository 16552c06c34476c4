"""Launches of the Triton kernel for the inner update."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor


@functools.cache
def _kernels() -> ModuleType:
    from sparsemeta.kernels import inner_update  # here, as in triton.py

    return inner_update


def inner_update(
    params: Sequence[Tensor | None], grads: Sequence[Tensor], rates: Sequence[float | Tensor]
) -> list[Tensor]:
    """`p_i - rate_i * g_i`, contiguous, up to 64 in a launch; params that are None, all of them, are zeros.

    A rate is a number, or a tensor that broadcasts to its parameter.
    """
    outs = [torch.empty_like(g) for g in grads]
    found = [i for i, g in enumerate(grads) if g.numel()]
    limit = _kernels().LIMIT
    for some in (found[at : at + limit] for at in range(0, len(found), limit)):
        _launch(*([tensors[i] for i in some] for tensors in (params, grads, outs, rates)))
    return outs


def _launch(params: list, grads: list[Tensor], outs: list[Tensor], rates: list) -> None:
    kernels, sizes = _kernels(), tuple(g.numel() for g in grads)
    windows = [_window(rate, g) for rate, g in zip(rates, grads, strict=True)]
    tables, repeats, counts = zip(*windows, strict=True)
    programs = sum(-(-size // kernels.BLOCK) for size in sizes)
    from_zeros = params[0] is None
    with torch.cuda.device_of(grads[0]):
        kernels.inner_update[(programs,)](
            tuple(grads if from_zeros else params), tuple(grads), tuple(outs), tables,
            tuple(0.0 if isinstance(rate, Tensor) else float(rate) for rate in rates), SIZES=sizes, REPEATS=repeats,
            COUNTS=counts, FROM_ZEROS=from_zeros, BLOCK=kernels.BLOCK,
        )  # fmt: skip


def _window(rate: float | Tensor, g: Tensor) -> tuple[Tensor, int, int]:
    """The rates in memory, how many neighbours share one, and after how many they begin again; a number has none."""
    if not isinstance(rate, Tensor):
        return g, 1, 0
    shape = (1,) * (g.dim() - rate.dim()) + tuple(rate.shape)
    own = [axis for axis, size in enumerate(shape) if size > 1]
    if own and shape[own[0] : own[-1] + 1] != g.shape[own[0] : own[-1] + 1]:  # shared along an axis in between
        return rate.expand_as(g).contiguous(), 1, g.numel()
    repeat = math.prod(g.shape[own[-1] + 1 :]) if own else g.numel()
    return rate.contiguous(), repeat, rate.numel()
