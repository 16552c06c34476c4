"""The inner-loop update of all parameters in one pass: the public function and its checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .inner_update_function import step


def inner_update(params: Any, grads: Any, lr: Any) -> Any:
    """One inner-loop step for all parameters: equivalent to ``[p - lr * g for p, g in zip(params, grads)]``.

    Out of place and in one pass; differentiable any number of times in params, grads and tensor rates. The step of
    MAML (Finn et al. 2017, arXiv 1703.03400, equation 1) and, with a rate tensor per parameter, of Meta-SGD (Li et
    al. 2017, arXiv 1707.09835, equation 2).

    Args:
        params: sequence or dict of floating-point tensors.
        grads: one per parameter and of its shape, in the same kind of container; None passes the parameter through.
        lr: a number, a 0-d tensor, or one per parameter in the same kind of container: numbers, or tensors that
            broadcast to the parameter.

    Returns:
        The new parameters: a dict for a dict, a tuple for a tuple, otherwise a list.

    Raises:
        ValueError: another container, or other keys, lengths or shapes, than those of ``params``.
    """
    if isinstance(params, Mapping):
        names = list(params)
        grads, rates = _by_name("grads", grads, names), lr if _is_rate(lr) else _by_name("lr", lr, names)
        return dict(zip(names, _update(names, list(params.values()), grads, rates), strict=True))
    new = _update(range(len(params)), list(params), grads, lr)
    return tuple(new) if isinstance(params, tuple) else new


def _by_name(what: str, given: Any, names: list[str]) -> list:
    if not isinstance(given, Mapping):
        raise ValueError(f"expected {what} as a dict, like params; got {type(given).__name__}")
    if given.keys() != set(names):
        raise ValueError(f"expected {what} with the keys of params; only one of the two has {given.keys() ^ names}")
    return [given[name] for name in names]


def _update(names: Sequence, params: list[Tensor], grads: Any, lr: Any) -> list[Tensor]:
    grads = _in_order("grads", grads, len(params))
    rates = [lr] * len(params) if _is_rate(lr) else _in_order("lr", lr, len(params))
    rates = [rate if isinstance(rate, Tensor) else float(rate) for rate in rates]
    moved = [i for i, g in enumerate(grads) if g is not None]
    for i in moved:
        _check_shapes(names[i], params[i].shape, grads[i].shape, rates[i])
    new = step(*([entries[i] for i in moved] for entries in (params, grads, rates)))
    for i, p in zip(moved, new, strict=True):
        params[i] = p
    return params


def _is_rate(lr: Any) -> bool:
    return isinstance(lr, (int, float)) or (isinstance(lr, Tensor) and lr.dim() == 0)


def _in_order(what: str, given: Any, count: int) -> Sequence:
    if isinstance(given, Sequence) and len(given) == count:
        return given
    got = len(given) if isinstance(given, Sequence) else type(given).__name__
    raise ValueError(f"expected {what} as a sequence of {count}, one per parameter; got {got}")


def _check_shapes(name: Any, p: torch.Size, g: torch.Size, lr: Any) -> None:
    if g != p:
        raise ValueError(f"expected grads[{name!r}] of its parameter's shape, {tuple(p)}; got {tuple(g)}")
    if isinstance(lr, Tensor) and not _broadcasts(lr.shape, p):
        raise ValueError(f"expected lr[{name!r}] that broadcasts to {tuple(p)}; got shape {tuple(lr.shape)}")


def _broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    return len(shape) <= len(to) and all(a in (1, b) for a, b in zip(shape[::-1], to[::-1], strict=False))
