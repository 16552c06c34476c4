"""Which route a convolution takes with `backend="auto"`: the one that was fastest when it was measured."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .tune_key import capturing, gpu_of
from .tune_measure import candidates, measure
from .tune_store import DENSE, Key, Times, store

MODES = ("off", "cached", "on")
SIGHTINGS = 20  # calls before a key is worth measuring: one call, or a short script, never waits
SHARE = 0.05  # of the time so far that may go into it unasked: one key now and then, never a whole model at once
MOSTLY_KEPT = 0.75  # density above which dense code is the better guess


@dataclass
class _Process:
    mode: str
    spent: float = 0.0
    began: float = field(default_factory=time.perf_counter)
    asked: bool = False  # inside `tune`: measure at once
    seen: Counter[Key] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)


def tuning(mode: str | None = None) -> str:
    """Set how `backend="auto"` chooses between the sparse kernels and dense PyTorch; returns the mode before.

    On a GPU only what has been asked for (`tune`) is measured; all else is dense there.

    Args:
        mode: `"off"`: always the sparse kernels. `"cached"`, the default: what has been measured (`tune`), in this or
            another process, else a guess. `"on"`: also measures what is used often, on synthetic operands, after 20
            calls of a pass of a layer and in at most 5 % of the time; the rounding changes where the route does, so
            that two runs can differ. `None`: leaves it. The environment variable SPARSEMETA_TUNING gives the mode at
            the start, and `torch.use_deterministic_algorithms(True)` acts as `"off"`.

    Raises:
        ValueError: no such mode.
    """
    before = _process.mode
    _process.mode = before if mode is None else _checked(mode)
    return before


def tune(call: Callable[[], object]) -> dict[Key, Times]:
    """Run `call`, and measure now what its `backend="auto"` convolutions have not measured yet, pass by pass.

    ```python
    sm.backends.tune(lambda: model(x).sum().backward())
    ```

    Returns:
        Seconds of each route for all that `call` met.
    """
    mode, asked, seen = tuning("on"), _process.asked, _process.seen
    _process.asked, _process.seen = True, Counter()
    try:
        call()
        return {key: store().times[key] for key in _process.seen if key in store().times}
    finally:
        _process.mode, _process.asked, _process.seen = mode, asked, seen


def active() -> bool:
    """Whether there is a choice to make."""
    return _process.mode != "off" and not torch.are_deterministic_algorithms_enabled()


def route(key: Key, conv) -> str:
    """`"cpu"`, or one of the dense routes of `choice_dense`."""
    if not active() or torch.is_autocast_enabled("cpu"):  # PyTorch would compute the dense routes in another dtype
        return "cpu"
    known = store().choices
    if key not in known or _process.asked:
        _process.seen[key] += 1
        _measure(key, lambda: measure(candidates(key, conv)))
    return known.get(key) or ("cpu" if key.density <= MOSTLY_KEPT else "channels_last")


def gpu_active(t: Tensor) -> bool:
    """Whether there is a choice to make on the GPU of `t`: one is being measured, or has gained something there."""
    if torch.compiler.is_compiling() or not active() or torch.is_autocast_enabled("cuda"):  # as in `route`
        return False
    gpu = gpu_of(t)
    return bool(gpu) and (_process.asked or gpu in store().gains)


def gpu_route(key: Key, times: Callable[[], Times] | None) -> str:
    """`"cuda"`, `"cuda generated"`, `"triton <tile>"`, or a dense route: of `times`, where `tune` asks and no capture runs.

    What has not been measured is dense, with the operands as they are.
    """
    if _process.asked and times and not capturing():
        _process.seen[key] += 1
        _measure(key, times)
    return store().choices.get(key, DENSE)


def triton_tile(key: Key) -> int:
    """The tile that was fastest when `key` was measured; the first where it was not."""
    known = store().times.get(key, {}) if active() else {}
    seconds = {route: taken for route, taken in known.items() if route.startswith("triton ")}
    return int(min(seconds, key=seconds.get).partition(" ")[2]) if seconds else 0


def _measure(key: Key, times: Callable[[], Times]) -> None:
    """Unless there is no need or no time, or another thread is at it."""
    if key in store().choices or not _due(key) or not _process.lock.acquire(blocking=False):
        return
    begin = time.perf_counter()
    try:
        store().add(key, times())
    finally:
        _process.spent += 0.0 if _process.asked else time.perf_counter() - begin
        _process.lock.release()


def _due(key: Key) -> bool:
    often = _process.mode == "on" and _process.seen[key] > SIGHTINGS
    return _process.asked or (often and _process.spent <= SHARE * (time.perf_counter() - _process.began))


def _checked(mode: str) -> str:
    if mode not in MODES:
        raise ValueError(f"expected tuning to be one of {', '.join(map(repr, MODES))}, got {mode!r}")
    return mode


# For runs that must not depend on times, the tests among them.
_process = _Process(_checked(os.environ.get("SPARSEMETA_TUNING") or "cached"))
