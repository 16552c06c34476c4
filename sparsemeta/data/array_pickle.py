"""Reads the one kind of pickle that a data set comes as, numbers and text, without running anything that it says.

A pickle may name any function and have it called. Here it may name three, and each name stands for code of this
module, not for what it means elsewhere: arrays of bytes, their type, and text that stands for bytes.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


class _Bytes:
    """Stands for the type of an array; only uint8 is one."""

    def __init__(self, kind: Any, *_: Any):
        if kind not in ("u1", "uint8", b"u1"):
            raise pickle.UnpicklingError(f"an array of {kind!r}, not of uint8")

    def __setstate__(self, state: Any) -> None:
        """Byte order and such: uint8 has none."""


class _Array:
    """Stands for an array until its state comes: version, shape, type, whether in Fortran order, the bytes."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, fortran, data = state
        data = data.encode("latin1") if isinstance(data, str) else data
        if not isinstance(kind, _Bytes) or not isinstance(data, bytes) or math.prod(shape) != len(data):
            raise pickle.UnpicklingError(f"no array of {shape} bytes")
        self.value = np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran else "C")


def _latin1(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes as text in {encoding!r}")
    return text.encode("latin1")


class _Named:
    """Stands for ``numpy.ndarray`` where a pickle passes it on; calling it makes nothing."""

    def __call__(self, *_: Any) -> None:
        raise pickle.UnpicklingError("an array made in another way than NumPy's own")


_ALLOWED: dict[tuple[str, str], Callable] = {
    ("numpy", "dtype"): _Bytes,
    ("numpy", "ndarray"): _Named(),
    ("_codecs", "encode"): _latin1,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): lambda *_: _Array() for core in ("core", "_core")},
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is neither numbers nor text")
        return _ALLOWED[module, name]


def read_arrays(path: Path) -> Any:
    """The dicts, lists, text, numbers and uint8 arrays in a pickle. Text of Python 2 is decoded.

    Raises ``ValueError`` if it is no pickle, or holds anything else.
    """
    try:
        with open(path, "rb") as file:
            return _plain(_Reader(file, encoding="latin1").load())
    except OSError:
        raise
    except Exception as error:  # a hostile or damaged pickle can break in any way
        raise ValueError(
            f"expected a pickle of uint8 arrays, dicts and text at {path}; got something else "
            f"({type(error).__name__}: {error}). Take the original cache file, or use the images and CSV files"
        ) from error


def _plain(node: Any) -> Any:
    if isinstance(node, _Array):
        return node.value
    if isinstance(node, dict):
        return {_text(key): _plain(value) for key, value in node.items()}
    return [_plain(item) for item in node] if isinstance(node, (list, tuple)) else node


def _text(key: Any) -> Any:
    return key.decode() if isinstance(key, bytes) else key
