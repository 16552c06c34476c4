"""The measurements on a GPU, in parts that can be run one by one and go on where an earlier run stopped.

    python -m sparsemeta.bench.gpu                   # every part of which no result lies in bench/results
    python -m sparsemeta.bench.gpu conv4-16x16       # this one, anew
    python -m sparsemeta.bench.gpu --results DIR --seconds 300

Each part writes `<gpu>-<part>.json` and, beside it, a plot. `make gpu` runs the tests first. A part that is not done
after so many seconds is stopped; the next run begins with it.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from . import gpu_ceilings, gpu_sanitizer, run
from .case import Case
from .cases import gpu_inner_update, gpu_meta, gpu_norm, gpu_tasks, gpu_unstructured
from .cases.conv_shapes import SHAPES, ConvShape
from .cases.gpu_conv import cases
from .cases.meta_shapes import MetaShape
from .report import save_json
from .timing import Budget

RESULTS = Path(__file__).parent / "results"
SPARSITIES = [0.8, 0.9, 0.95]
BUDGET = Budget(rounds=10, seconds=0.2)
SECONDS = 400
OMNIGLOT, MINI_IMAGENET = MetaShape(28, channels=1, shots=1, steps=1), MetaShape(84, channels=3, shots=1)
TASKS = 32
CONV4 = [ConvShape(25, size=42), ConvShape(75, size=21)]
RESNET12 = list(SHAPES["resnet12"][:3])
PARTS: dict[str, Callable[[str], Sequence[Case]]] = {  # the most telling ones first
    "conv4-16x16": lambda device: cases(CONV4, ["16x16"], SPARSITIES, device),
    "meta-omniglot": lambda device: gpu_meta.cases([OMNIGLOT], ["16x16", "unstructured"], [0.9], TASKS, device),
    "conv4-unstructured": lambda device: gpu_unstructured.cases(CONV4, SPARSITIES, device),
    "tasks-conv4-16x16": lambda device: gpu_tasks.cases([ConvShape(25, size=21)], ["16x16"], [0.9], TASKS, device),
    "norm-act-pool": lambda device: gpu_norm.cases([(25, 64, 84), (25 * TASKS, 64, 42), (75, 64, 21)], device),
    "inner-update": lambda device: gpu_inner_update.cases([1, TASKS], SPARSITIES, device),
    "conv4-32x32": lambda device: cases(CONV4, ["32x32"], SPARSITIES, device),
    "resnet12-16x16": lambda device: cases(RESNET12, ["16x16"], SPARSITIES, device),
    "resnet12-32x32": lambda device: cases(RESNET12, ["32x32"], SPARSITIES, device),
    "resnet12-unstructured": lambda device: gpu_unstructured.cases(RESNET12, SPARSITIES, device),
    "meta-mini-imagenet": lambda device: gpu_meta.cases(
        [MINI_IMAGENET], ["16x16", "unstructured"], [0.9], TASKS, device, ["first"]
    ),
    "meta-compiled": lambda device: gpu_meta.cases([OMNIGLOT], ["16x16"], [0.9], TASKS, device, ["first"], True),
}
CHECKS: dict[str, Callable[[], dict[str, Any]]] = {"sanitizer": gpu_sanitizer.sanitized}  # give what is in the file


def main(names: Sequence[str], results: Path = RESULTS, seconds: float = SECONDS) -> None:
    """Run the part of that name, or several, or those without a result in that folder, each in a process of its own.

    Raises:
        ValueError: a name that is no part.
        RuntimeError: PyTorch finds no GPU, or a part failed; the others are measured before.
    """
    if wrong := set(names) - PARTS.keys() - CHECKS.keys():
        raise ValueError(f"expected parts of {', '.join([*PARTS, *CHECKS])}; got {', '.join(sorted(wrong))}")
    if not torch.cuda.is_available():
        raise RuntimeError("expected a CUDA device, PyTorch finds none; run this on a machine with an NVIDIA GPU")
    results.mkdir(parents=True, exist_ok=True)
    if len(names) == 1:
        return run_part(*names, result(results, device_name(), *names))
    failed, end = [], time.monotonic() + seconds
    for name in names or missing(results, device_name()):
        command = [sys.executable, "-m", "sparsemeta.bench.gpu", name, "--results", str(results)]
        try:  # an error of a kernel leaves a process without its GPU
            failed += [name] * (subprocess.run(command, timeout=max(end - time.monotonic(), 0)).returncode != 0)
        except subprocess.TimeoutExpired:
            print(f"stopped {name} after {seconds:.0f} s; run this again to go on")
            break
    if failed:
        raise RuntimeError(f"expected every part to be measured, {', '.join(failed)} failed; run them by their names")


def run_part(name: str, file: Path) -> None:
    """Run a part; its file is there only when all of it is done."""
    if name in CHECKS:
        return save_json(file, CHECKS[name]())
    partial = file.with_suffix(".partial.json")  # a part that was cut short is run again
    run.run(PARTS[name]("cuda"), run.Settings(BUDGET, json_file=partial, plot_file=file.with_suffix(".svg")))
    gpu_ceilings.count(partial)
    partial.replace(file)


def missing(folder: Path, device: str) -> list[str]:
    """Parts without a result."""
    return [name for name in (*PARTS, *CHECKS) if not result(folder, device, name).exists()]


def result(folder: Path, device: str, part: str) -> Path:
    """The file of a part."""
    return folder / f"{device}-{part}.json"


def device_name() -> str:
    """Of the first GPU, as part of a file name: `h200`."""
    return slug(torch.cuda.get_device_name())


def slug(name: str) -> str:
    """`NVIDIA H200` -> `h200`."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower().removeprefix("nvidia ")).strip("-")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="part", help=", ".join([*PARTS, *CHECKS]))
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="after which the part that runs is stopped")
    main(**vars(parser.parse_args()))
