"""What the build of the extensions left behind: what they were compiled for, or why one is missing and what to do."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

_RECORD = Path(__file__).with_name("_build_info.json")  # written by setup.py
_COMPILERS = {"_C": "g++", "_CUDA": "g++ and nvcc (CUDA 12.8 or newer for every GPU)"}


def variants() -> list[str]:
    """Instruction sets that the extension was compiled for; empty where there is no extension."""
    return _record("_C").get("variants", []) if find_spec("sparsemeta._C") else []


def gpus() -> list[str]:
    """Targets that the CUDA extension was compiled for; empty where there is no such extension."""
    return _record("_CUDA").get("gpus", []) if find_spec("sparsemeta._CUDA") else []


def missing(extension: str = "_C") -> list[str]:
    """Why there is no such extension (`"_C"` or `"_CUDA"`), and what to do; empty where there is one."""
    if find_spec(f"sparsemeta.{extension}"):
        return []
    if error := _record(extension).get("error"):
        why = f"it was not compiled ({error})"
    elif _record(extension):
        why = "it was compiled for another Python"
    else:
        why = "it was never compiled: sparsemeta runs from a folder that was not installed"
    run = "in the sparsemeta folder, run: pip install -v --force-reinstall --no-deps ."
    return [f"{why}; install {_COMPILERS[extension]} and, {run}"]


def _record(extension: str) -> dict:
    record = json.loads(_RECORD.read_text()) if _RECORD.exists() else {}
    return record.get(f"sparsemeta.{extension}", {})
