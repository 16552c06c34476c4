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

LOOKS, LEAST_ROUNDS, MOST_ROUNDS, SECONDS = 3, 7, 50, 0.03
HOPELESS = 1.5  # times the best after the looks, by their minima: not worth further rounds

_Calls = Mapping[str, Callable[[], object]]


def candidates(key: Key, conv) -> dict[str, Callable[[], Tensor]]:
    """The pass by the sparse kernels and by every dense route, all on the same operands."""
    given = operands(key, conv)
    calls = {"cpu": partial(getattr(cpu, KERNELS[key.operation]), *given, conv)}
    dense = getattr(choice_dense, KERNELS[key.operation])
    return calls | {name: partial(dense, *given, conv, name) for name in choice_dense.routes(conv)}


def measure(calls: _Calls, clock: Callable[[], float] = time.perf_counter) -> Times:
    """Median seconds of each call, in turns; where a few looks leave no doubt, the least of those."""
    for call in calls.values():  # builds plans, and PyTorch's primitives
        call()
    looks = _rounds(calls, LOOKS, clock)
    least = {name: min(taken) for name, taken in looks.items()}  # a program that breaks in can only add to a time
    rest = {name: call for name, call in calls.items() if least[name] <= HOPELESS * min(least.values())}
    if len(rest) == 1:
        return least
    end, rounds = clock() + SECONDS, LOOKS
    while rounds < MOST_ROUNDS and (rounds < LEAST_ROUNDS or clock() < end):
        for name, taken in _rounds(rest, 1, clock).items():
            looks[name] += taken
        rounds += 1
    return least | {name: statistics.median(looks[name]) for name in rest}


def _rounds(calls: _Calls, rounds: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begin = clock()
            call()
            taken[name].append(clock() - begin)
    return taken


def operands(key: Key, conv) -> tuple:
    """Those of the kernel before its `conv`, random: PyTorch's own generator is left alone."""
    tasks = key.images[:-4]
    x = random_operand(key, *key.images)
    values = random_operand(key, *tasks, conv.pattern.nnz)
    g = random_operand(key, *key.images[:-3], *conv.output_size(x))
    if key.operation == "forward":
        return x, values, None
    return (g, values, *key.images[-2:]) if key.operation == "input gradient" else (g, x)


def random_operand(key: Key, *shape: int) -> Tensor:
    numbers = np.random.default_rng(0).standard_normal(shape, np.float32)
    return torch.from_numpy(numbers).to(getattr(torch, key.dtype))
