"""Where figures were measured: versions, processor and threads; nothing that names the machine or its user."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import torch

import sparsemeta
from sparsemeta import backends


def describe() -> dict[str, str | int]:
    """Facts that a figure depends on, by name."""
    return {
        "processor": processor(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "kernels": backends.cpu.isa(),
        "system": f"{platform.system()} {platform.machine()}",
        "sparsemeta": sparsemeta.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def processor() -> str:
    """The processor's model name, or its architecture where the system does not tell."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.M) if cpuinfo.exists() else None
    return found[1] if found else platform.processor() or platform.machine()
