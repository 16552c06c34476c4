"""The measurements on a GPU, in parts that can be run one by one and go on where an earlier run stopped.

    python -m sparsemeta.bench.gpu                   # every part of which no result lies in bench/results
    python -m sparsemeta.bench.gpu conv4-16x16       # this one, anew

Each part writes `bench/results/<gpu>-<part>.json` and, beside it, a plot. `make gpu` runs the tests first. After LIMIT
seconds no further part begins; the next run goes on with it.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from . import gpu_ceilings, gpu_sanitizer, run
from .case import Case
from .cases import gpu_inner_update, gpu_meta, gpu_meta_step, gpu_norm, gpu_tasks, gpu_unstructured
from .cases.conv_shapes import ConvShape
from .cases.gpu_conv import cases
from .cases.meta_shapes import MetaShape
from .report import save_json
from .timing import Budget

RESULTS = Path(__file__).parent / "results"
SPARSITIES = [0.8, 0.9, 0.95]
BUDGET = Budget(rounds=10, seconds=0.2)
LIMIT = 400  # of the 9 minutes of a GPU machine's session; the last part to begin and the tests take the rest
OMNIGLOT, MINI_IMAGENET = MetaShape(28, channels=1, shots=1, steps=1), MetaShape(84, channels=3, shots=1)
TASKS = 32
CONV4 = [ConvShape(25, size=42), ConvShape(75, size=21)]
RESNET12 = [ConvShape(25, 160, 160, 21), ConvShape(25, 320, 320, 10), ConvShape(25, 640, 640, 5)]
PARTS: dict[str, Callable[[str], Sequence[Case]]] = {  # the most telling ones first
    "meta-omniglot": lambda device: gpu_meta.cases([OMNIGLOT], ["16x16"], [0.9], TASKS, device),
    "norm-act-pool": lambda device: gpu_norm.cases([(25, 64, 84), (25 * TASKS, 64, 42), (75, 64, 21)], device),
    "tasks-conv4-16x16": lambda device: gpu_tasks.cases([ConvShape(25, size=21)], ["16x16"], [0.9], TASKS, device),
    "conv4-16x16": lambda device: cases(CONV4, ["16x16"], SPARSITIES, device),
    "conv4-32x32": lambda device: cases(CONV4, ["32x32"], SPARSITIES, device),
    "resnet12-16x16": lambda device: cases(RESNET12, ["16x16"], SPARSITIES, device),
    "resnet12-32x32": lambda device: cases(RESNET12, ["32x32"], SPARSITIES, device),
    "conv4-unstructured": lambda device: gpu_unstructured.cases(CONV4, SPARSITIES, device),
    "resnet12-unstructured": lambda device: gpu_unstructured.cases(RESNET12, SPARSITIES, device),
    "meta-unstructured": lambda device: gpu_meta_step.cases([OMNIGLOT, MINI_IMAGENET], SPARSITIES, TASKS, device),
    "inner-update": lambda device: gpu_inner_update.cases([1, TASKS], SPARSITIES, device),
    "meta-mini-imagenet": lambda device: gpu_meta.cases([MINI_IMAGENET], ["16x16"], [0.9], TASKS, device, ["first"]),
    "meta-compiled": lambda device: gpu_meta.cases([OMNIGLOT], ["16x16"], [0.9], TASKS, device, ["first"], True),
}
CHECKS: dict[str, Callable[[], dict[str, Any]]] = {"sanitizer": gpu_sanitizer.sanitized}  # give what is in the file


def main(names: Sequence[str]) -> None:
    """Run the named parts, or those without a result.

    Raises:
        ValueError: a name that is no part.
        RuntimeError: PyTorch finds no GPU.
    """
    if wrong := set(names) - PARTS.keys() - CHECKS.keys():
        raise ValueError(f"expected parts of {', '.join([*PARTS, *CHECKS])}; got {', '.join(sorted(wrong))}")
    if not torch.cuda.is_available():
        raise RuntimeError("expected a CUDA device, PyTorch finds none; run this on a machine with an NVIDIA GPU")
    begin = time.monotonic()
    for name in names or missing(RESULTS, device_name()):
        if not names and time.monotonic() - begin > LIMIT:
            print(f"stopped before {name} after {LIMIT} s; run this again to go on")
            return
        run_part(name, result(RESULTS, device_name(), name))


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
    main(sys.argv[1:])
