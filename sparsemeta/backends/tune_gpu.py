"""Times of every route on a GPU: dense PyTorch, CUDA C++ by a table or by code made for the pattern, Triton's tiles."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from . import choice_dense, cuda, triton
from .tune_measure import measure, operands, random_operand
from .tune_store import DENSE, KERNELS, Key, Times

CALLS = 10  # in a row: one alone is shorter than waiting for the device

_Calls = dict[str, Callable[[], object]]


def times(key: Key, conv, device: torch.device) -> Times:
    """Median seconds of a call of each route that can run."""
    calls = _norm_calls(key, device) if conv is None else _conv_calls(key, conv, device)
    found = measure({name: partial(_repeated, call) for name, call in working(calls).items()}, partial(_clock, device))
    return {name: seconds / CALLS for name, seconds in found.items()}


def working(calls: _Calls) -> _Calls:
    """Those that run; a tile can need more shared memory than a GPU has. Dense has to run."""
    found = {}
    for name, call in calls.items():
        try:
            call()
        except Exception:
            if name == DENSE:
                raise
        else:
            found[name] = call
    return found


def _conv_calls(key: Key, conv, device: torch.device) -> _Calls:
    kernel, given = KERNELS[key.operation], [_placed(t, key, device) for t in operands(key, conv)]
    calls: _Calls = {
        name: partial(getattr(choice_dense, kernel), *given, conv, name) for name in (DENSE, *choice_dense.routes(conv))
    }
    tensors = [t for t in given if isinstance(t, Tensor)]
    if not cuda.reasons(*tensors):
        calls["cuda"] = partial(getattr(cuda, kernel), *given, conv)
        if key.operation != "weight gradient" and not cuda.generated_reasons(conv, device):
            calls["cuda generated"] = partial(getattr(cuda, kernel), *given, conv, "generated")
    if not triton.reasons(*tensors) and not triton.conv_reasons(conv):
        for tile in range(triton.tiles(key.operation, conv, tensors[0].dtype)):
            calls[f"triton {tile}"] = partial(getattr(triton, kernel), *given, conv, tile)
    return calls


def _norm_calls(key: Key, device: torch.device) -> _Calls:
    from ..ops.norm_act_pool import norm_act_pool  # here: the operations come after their backends

    x = _placed(random_operand(key, *key.images), key, device).requires_grad_()
    weight, bias = (torch.ones(key.weight, dtype=x.dtype, device=device, requires_grad=True) for _ in range(2))

    def call(backend: str) -> tuple[Tensor, ...]:
        y = norm_act_pool(x, weight, bias, pool=key.stride[0], backend=backend)
        return torch.autograd.grad(y, (x, weight, bias), torch.ones_like(y))

    return {DENSE: partial(call, "dense")} | ({} if triton.reasons(x) else {"triton": partial(call, "triton")})


def _placed(t: object, key: Key, device: torch.device) -> object:
    """As the operands of `key` are: there, and with their channels last or not."""
    if not isinstance(t, Tensor):
        return t
    t = t.to(device, getattr(torch, key.dtype))
    return t.movedim(-3, -1).contiguous().movedim(-1, -3) if key.layout and t.dim() > 3 else t


def _repeated(call: Callable[[], object]) -> None:
    for _ in range(CALLS):
        call()


def _clock(device: torch.device) -> float:
    torch.cuda.synchronize(device)
    return time.perf_counter()
