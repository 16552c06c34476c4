"""A small set of the GPU tests under NVIDIA's compute-sanitizer: reads and writes outside of memory, and races."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1] / "tests"
SMALL = {  # a file, and the tests of it that are few and take every kernel
    "kernels/test_gpu.py": "test_strict_float32 and (3x3 or stride-2 or tasks-splits)",
    "kernels/test_gpu_norm_act_pool.py": "f32 and (13 or 7)",
    "kernels/test_gpu_inner_update.py": "f32",
    "cuda/test_cuda_on_gpu.py": "bf16 and (stride or tasks)",
}
TOOLS = ("memcheck", "racecheck")
SECONDS = 60  # of a tool and file
KEPT = 2000  # characters of what a failed one said


def sanitized(run: Callable[..., Any] = subprocess.run) -> dict[str, Any]:
    """What each tool said of each file, or why there is none."""
    found = shutil.which("compute-sanitizer") or _beside_nvcc()
    if found is None:
        return {"skipped": "compute-sanitizer is not installed; it comes with the CUDA toolkit"}
    return {
        tool: {file: _one(run, found, tool, file, names) for file, names in SMALL.items() if (TESTS / file).exists()}
        for tool in TOOLS
    }


def _one(run: Callable[..., Any], sanitizer: str, tool: str, file: str, names: str) -> str:
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", "--target-processes", "all", sys.executable]
    command += ["-m", "pytest", "-q", "-x", "-o", "addopts=", "-p", "no:cacheprovider", "-m", "gpu", "-k", names]
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}  # so that every tensor has bounds of its own
    try:
        done = run([*command, str(TESTS / file)], env=environment, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return f"not done after {SECONDS} s"
    return "no errors" if done.returncode == 0 else (done.stdout + done.stderr)[-KEPT:]


def _beside_nvcc() -> str | None:
    nvcc = shutil.which("nvcc")
    beside = Path(nvcc).resolve().parent / "compute-sanitizer" if nvcc else None
    return str(beside) if beside and beside.exists() else None
