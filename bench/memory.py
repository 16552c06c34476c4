"""Peak memory of a meta-step, each in a process of its own: whatever ran before would hide it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from . import machine
from .cases.conv_candidates import LAYOUTS
from .cases.meta_shapes import MetaShape
from .cases.meta_step import MetaStepCase
from .report import SCHEMA, save_json

STEPS = (1, 10)


@dataclass(frozen=True)
class Peak:
    """Of one meta-step: largest resident size of its process, and how much of that came with the step; in bytes."""

    labels: dict[str, Any]
    way: str
    steps: int
    process: int
    step: int


def peaks(case: MetaStepCase) -> list[Peak]:
    """Of the dense model in both layouts and of the sparse one with each backend, with 1 and with 10 inner steps.

    Raises:
        RuntimeError: a meta-step failed; with its message.
    """
    return [_peak(case, way, steps) for way in (*LAYOUTS, *case.backends) for steps in STEPS]


def _peak(case: MetaStepCase, way: str, steps: int) -> Peak:
    labels = {name: value for name, value in case.labels.items() if name != "meta-step"}
    size = f"{case.shape.size}x{case.shape.size}x{case.shape.channels}"
    return Peak({"images": size, **labels}, way, steps, **_measured(case, way, steps))


def _measured(case: MetaStepCase, way: str, steps: int) -> dict[str, int]:
    given = {**asdict(case), "shape": asdict(replace(case.shape, steps=steps))}
    command = [sys.executable, "-m", "sparsemeta.bench.memory", json.dumps(given), way]
    environment = {**os.environ, "SPARSEMETA_TUNING": "cached"}  # operands to measure with would count as the step's
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it was killed"])[-1]
        raise RuntimeError(f"expected the meta-step of {way} with {steps} inner steps to run, got: {reason}")
    return json.loads(done.stdout.splitlines()[-1])


def report(found: Sequence[Peak], json_file: Path | None) -> None:
    """Print a table, and write the JSON: `schema`, `machine`, and the peaks under `memory`."""
    table = Table(title="peak memory of a meta-step: process (of which the step)", title_justify="left")
    for name in (*found[0].labels, "by", *(f"{n} step{'s' * (n > 1)}" for n in STEPS), "ratio"):
        table.add_column(name)
    for first, last in zip(found[::2], found[1::2], strict=True):
        told = (f"{p.process / 2**20:.0f} MB ({p.step / 2**20:.0f} MB)" for p in (first, last))
        ratio = f"{last.process / first.process:.2f} ({last.step / max(first.step, 1):.2f})"
        table.add_row(*map(str, first.labels.values()), first.way, *told, ratio)
    console = Console()
    console.width = console.width if console.is_terminal else 1000
    console.print(table)
    if json_file:
        memory = [asdict(peak) for peak in found]
        save_json(json_file, {"schema": SCHEMA, "machine": machine.facts(), "memory": memory})


def _main(case: MetaStepCase, way: str) -> None:
    """In a process of its own: one meta-step, and the peaks before and after it."""
    torch.set_num_threads(case.threads)
    run = case.dense_run(way) if way in LAYOUTS else case.sparse_run(way)
    before = _high_water()
    run()
    after = _high_water()
    print(json.dumps({"process": after, "step": after - before}))


def _high_water() -> int:
    """Bytes. Not `getrusage`: a process that was started by a large one has that one's peak there."""
    status = Path("/proc/self/status")
    found = re.search(r"^VmHWM:\s*(\d+) kB$", status.read_text(), re.M) if status.exists() else None
    if not found:
        raise OSError("expected /proc/self/status with the peak memory of a process; run this on Linux")
    return int(found[1]) * 1024


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    _main(MetaStepCase(**{**told, "shape": MetaShape(**told["shape"])}), sys.argv[2])
