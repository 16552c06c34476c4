"""What the figures depend on besides the code: machine, versions, commit, command line."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from sparsemeta.backends.tune_store import processor
from sparsemeta.cli import info

_ROOT = Path(__file__).resolve().parents[1]


def facts() -> dict[str, Any]:
    """Everything that identifies a run, with no name of a host, user or folder."""
    known = info.collect()
    known["openmp"] = [Path(runtime).name for runtime in known["openmp"]]
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        **known,
        "commit": commit(),
        "command": [Path(word).name if Path(word).is_absolute() else word for word in sys.argv],
    }


def commit() -> str | None:
    """Git commit of this code, with `+` after it if files have been changed; None outside a checkout of its own."""
    if not (_ROOT / ".git").exists():
        return None
    try:
        return _git("rev-parse", "HEAD") + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):  # no git command, or a checkout that it refuses to read
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
