"""What this GPU reaches at best, measured: bytes a second in a copy, operations a second in a large matrix product."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from .cases.gpu_conv import _set_precision
from .report import save_json
from .timing import Budget, interleaved

COPY, SIDE, CALLS = 2**28, 8192, 10  # float32 numbers; rows and columns; calls of one time


@functools.cache  # one measurement for all parts of a run
def ceilings() -> dict[str, Any]:
    """`bytes_per_second`, and `operations_per_second` by arithmetic, multiply and add being two."""
    return {"bytes_per_second": _copied(), "operations_per_second": {name: _multiplied(name) for name in _TYPES}}


_TYPES = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16}


def _copied() -> float:
    a, b = torch.empty(2, COPY, device="cuda")
    return 8 * COPY / _seconds(lambda: a.copy_(b))


def _multiplied(arithmetic: str) -> float:
    _set_precision("tf32" if arithmetic == "tf32" else "ieee")
    torch.backends.cuda.matmul.allow_tf32 = arithmetic == "tf32"
    a, b = torch.randn(2, SIDE, SIDE, device="cuda", dtype=_TYPES[arithmetic])
    return 2 * SIDE**3 / _seconds(lambda: a @ b)


def _seconds(call: Callable[[], object]) -> float:
    def calls() -> None:
        for _ in range(CALLS):
            call()
        torch.cuda.synchronize()

    return interleaved({"": calls}, Budget(rounds=5, seconds=0.1))[""].median / CALLS


def counted(content: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Results of a part with, beside each sparse time, what part of the ceilings its bytes and operations come to.

    Cases tell `bytes`, or `operations` and `arithmetic`, of one call, and `calls`, of one time, in their labels.
    """
    for row in content["results"]:
        labels, peaks = row["labels"], found["operations_per_second"]
        for sample in row["samples"]:
            seconds = sample["seconds"]["median"] / labels.get("calls", 1)
            if sample["role"] == "sparse" and "bytes" in labels:
                sample["of_copy"] = labels["bytes"] / seconds / found["bytes_per_second"]
            if sample["role"] == "sparse" and "operations" in labels:
                sample["of_peak"] = labels["operations"] / seconds / peaks[labels["arithmetic"]]
    return {**content, "ceilings": found}


def count(file: Path) -> None:
    """Add `counted` to a part's file, and which GPU that was."""
    content = json.loads(file.read_text())
    content["machine"]["gpu"] = _gpu()
    save_json(file, counted(content, ceilings()))


def _gpu() -> dict[str, Any]:
    found = torch.cuda.get_device_properties(torch.cuda.current_device())
    versions = {"cuda": torch.version.cuda, "triton": version("triton")}
    return {"name": found.name, "multiprocessors": found.multi_processor_count, "bytes": found.total_memory, **versions}
