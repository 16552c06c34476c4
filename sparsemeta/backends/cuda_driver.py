"""Where CUDA kernels run: on the current stream of a GPU or, for tests and debugging, emulated on the CPU."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch
from torch import Tensor

from .. import _build
from . import cpu

TYPES = torch.float32, torch.bfloat16
OLDEST = 8, 0  # compute capability of the first GPUs that the kernels are compiled for
_EMULATED_PROCESSORS = 4  # few, so that small problems take every path: small tiles, and sums in one part and in many


def _load() -> ModuleType | None:
    try:
        from sparsemeta import _CUDA
    except ImportError:
        return None
    return _CUDA


_EXTENSION = _load()  # at import, as in cpu.py
_emulating = os.environ.get("SPARSEMETA_CUDA_EMULATE", "0") != "0"  # to debug a whole program without a GPU


@contextmanager
def emulation() -> Iterator[None]:
    """Within it, backend `"cuda"` takes CPU tensors and runs its kernels on the CPU, thread by thread. Slow."""
    global _emulating
    before, _emulating = _emulating, True
    try:
        yield
    finally:
        _emulating = before


def emulating() -> bool:
    """Whether kernels run on the CPU."""
    return _emulating


def extension() -> ModuleType:
    """The compiled module whose kernels run: `sparsemeta._CUDA`, or the one that emulates it."""
    return cpu.extension().cuda_on_cpu if _emulating else _EXTENSION


def missing() -> list[str]:
    """Why this installation has no CUDA kernels or nothing to run them on, and what to do."""
    return cpu.missing() if _emulating else _missing()


@functools.cache  # neither changes while the process lives, and asking the driver takes time
def _missing() -> list[str]:
    found = [] if _EXTENSION else [f"the CUDA extension is missing: {why}" for why in _build.missing("_CUDA")]
    if not torch.cuda.is_available():
        found.append("PyTorch finds no CUDA device; install a driver and a build of PyTorch with CUDA")
    elif _EXTENSION and (problem := _EXTENSION.problem()):  # a driver too old for the runtime of the extension, say
        found.append(f"{problem}; update the driver, or install sparsemeta with an nvcc as old as the driver")
    return found


def reasons(*tensors: Tensor) -> list[str]:
    """Why these operands cannot be run."""
    found, first = list(missing()), tensors[0]
    wanted = "cpu" if _emulating else "cuda"
    if any(t.device.type != wanted or t.device != first.device for t in tensors):
        got = ", ".join(sorted({str(t.device) for t in tensors}))
        found.append(f"it needs {wanted.upper()} tensors, all on one device, got {got}")
    elif not found and wanted == "cuda" and torch.cuda.get_device_capability(first.device) < OLDEST:
        found.append(f"it needs a GPU of compute capability {OLDEST[0]}.{OLDEST[1]} or newer, got {first.device}")
    if first.dtype not in TYPES or any(t.dtype != first.dtype for t in tensors):
        found.append(f"it needs all float32 or all bfloat16, got {', '.join(str(t.dtype) for t in tensors)}")
    return found


def processors(device: torch.device) -> int:
    """Multiprocessors of the GPU."""
    return _EMULATED_PROCESSORS if _emulating else torch.cuda.get_device_properties(device).multi_processor_count


@contextmanager
def launching(operation: str, *tensors: Tensor) -> Iterator[tuple[int, int]]:
    """Device and stream to launch on; an error is raised with the operation's name and the operands' shapes."""
    device = tensors[0].device
    try:
        if _emulating:
            yield 0, 0
        else:
            with torch.cuda.device(device):
                yield torch.cuda.current_device(), torch.cuda.current_stream().cuda_stream
    except RuntimeError as error:
        shapes = ", ".join(str(tuple(t.shape)) for t in tensors)
        raise RuntimeError(f"{operation} of {shapes} on {device}: {error}") from error
