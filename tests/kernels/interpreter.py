"""Whether Triton's interpreter works with the NumPy that is here."""

from __future__ import annotations

import re

import numpy
import triton

WORKS, BREAKS = (3, 7), (2, 4)  # the first Triton that works with the first NumPy that Triton 3.6 fails with


def objection(triton_version: str = triton.__version__, numpy_version: str = numpy.__version__) -> str | None:
    """Why nothing can be interpreted here, if so."""
    if _numbers(triton_version) < WORKS and _numbers(numpy_version) >= BREAKS:
        return (
            f"the interpreter of Triton {triton_version} makes numbers of arrays, which NumPy {numpy_version} refuses: "
            "pip install 'triton>=3.7' or 'numpy<2.4'"
        )
    return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
