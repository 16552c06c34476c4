"""What the build of `sparsemeta._C` left behind: its variants, or why it is missing and what to do."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

_RECORD = Path(__file__).with_name("_build_info.json")  # written by setup.py


def variants() -> list[str]:
    """Instruction sets that the extension was compiled for; empty where there is no extension."""
    return _record().get("variants", []) if find_spec("sparsemeta._C") else []


def missing() -> list[str]:
    """Why there is no extension, and what to do; empty where there is one."""
    if find_spec("sparsemeta._C"):
        return []
    if error := _record().get("error"):
        why = f"it was not compiled ({error})"
    elif _record():
        why = "it was compiled for another Python"
    else:
        why = "it was never compiled: sparsemeta runs from a folder that was not installed"
    return [f"{why}; install g++ and, in the sparsemeta folder, run: pip install -v --force-reinstall --no-deps ."]


def _record() -> dict:
    return json.loads(_RECORD.read_text()) if _RECORD.exists() else {}
