"""Times of every route for one pass of one convolution, on operands made for it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor

from . import choice_dense, cpu
from .tune_store import KERNELS, Key, Times

LEAST_ROUNDS, MOST_ROUNDS, SECONDS = 3, 50, 0.03
HOPELESS = 1.5  # times the best, at the first look: not worth further rounds

_Calls = Mapping[str, Callable[[], object]]


def candidates(key: Key, conv) -> dict[str, Callable[[], Tensor]]:
    """The pass by the sparse kernels and by every dense route, all on the same operands."""
    operands = _operands(key, conv)
    calls = {"cpu": partial(getattr(cpu, KERNELS[key.operation]), *operands, conv)}
    dense = getattr(choice_dense, KERNELS[key.operation])
    return calls | {name: partial(dense, *operands, conv, name) for name in choice_dense.routes(conv)}


def measure(calls: _Calls, clock: Callable[[], float] = time.perf_counter) -> Times:
    """Median seconds of each call, in turns; of a hopeless one the seconds of its first warm call."""
    for call in calls.values():  # builds plans, and PyTorch's primitives
        call()
    times = {name: [taken] for name, taken in _round(calls, clock).items()}
    best = min(first for [first] in times.values())
    rest = {name: call for name, call in calls.items() if times[name][0] <= HOPELESS * best}
    end, rounds = clock() + SECONDS, 1
    while len(rest) > 1 and (rounds < LEAST_ROUNDS or clock() < end) and rounds < MOST_ROUNDS:
        for name, taken in _round(rest, clock).items():
            times[name].append(taken)
        rounds += 1
    return {name: statistics.median(taken) for name, taken in times.items()}


def _round(calls: _Calls, clock: Callable[[], float]) -> dict[str, float]:
    taken = {}
    for name, call in calls.items():
        begin = clock()
        call()
        taken[name] = clock() - begin
    return taken


def _operands(key: Key, conv) -> tuple:
    """Those of the kernel before its `conv`, random: PyTorch's own generator is left alone."""
    tasks = key.images[:-4]
    x = _random(key, *key.images)
    values = _random(key, *tasks, conv.pattern.nnz)
    g = _random(key, *key.images[:-3], *conv.output_size(x))
    if key.operation == "forward":
        return x, values, None
    return (g, values, *key.images[-2:]) if key.operation == "input gradient" else (g, x)


def _random(key: Key, *shape: int) -> Tensor:
    numbers = np.random.default_rng(0).standard_normal(shape, np.float32)
    return torch.from_numpy(numbers).to(getattr(torch, key.dtype))
