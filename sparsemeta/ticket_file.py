"""Ticket files: safetensors that hold the masks as bits. No pickle, and nothing is believed before it is checked.

Metadata, all text: `format` "sparsemeta.ticket"; `version` "1"; `layers`, in JSON `{name: {"shape": [], "block": []}}`;
`provenance`, a JSON object; `sha256` of those two texts and the bits, in hex. Under the name of each layer there is one
uint8 tensor, its kept blocks as bits (`pattern_bits.pack`).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from .files import write_atomically
from .pattern import Pattern
from .pattern_bits import MAX_WEIGHTS, check_sizes, pack, unpack
from .ticket_layers import TicketError

FORMAT, VERSION = "sparsemeta.ticket", 1
Sizes = dict[str, tuple[tuple[int, ...], tuple[int, ...]]]


def write(path: str | os.PathLike, patterns: Mapping[str, Pattern], provenance: str) -> None:
    """Write a ticket file atomically; `provenance` is a JSON object as text."""
    _check_total(sum(pattern.numel for pattern in patterns.values()))
    layers = json.dumps({name: {"shape": p.shape, "block": p.block} for name, p in patterns.items()})
    bits = {name: pack(pattern) for name, pattern in patterns.items()}
    metadata = {"format": FORMAT, "version": str(VERSION), "layers": layers, "provenance": provenance}
    write_atomically(Path(path), save(bits, {**metadata, "sha256": _digest(metadata, bits)}))


def read(path: str | os.PathLike) -> tuple[dict[str, Pattern], dict[str, Any]]:
    """Patterns and provenance of a ticket file. Raises `TicketError` on anything but a whole ticket."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"expected a ticket file, got {os.fspath(path)!r}, which is no file; check the path")
    try:
        metadata, bits = _open(path)
        sizes = _sizes(metadata["layers"])
        if bits.keys() != sizes.keys():
            raise ValueError(f"expected bits for the layers {sorted(sizes)}, got them for {sorted(bits)}")
        patterns = {name: unpack(bits[name], *sizes[name]) for name in sizes}
        return patterns, _json_object("provenance", metadata["provenance"])
    except (SafetensorError, ValueError) as error:
        raise TicketError(
            f"expected a ticket file written by Ticket.save, got {os.fspath(path)!r}: {error}; "
            f"it may be damaged or of another kind: copy or make it again"
        ) from None


def _open(path: str | os.PathLike) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Metadata and tensors, whole and of this version. safetensors has checked every size against the file's."""
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise ValueError(f"expected format {FORMAT!r} in its metadata, got {metadata.get('format')!r}")
        if (version := metadata.get("version")) != str(VERSION):
            raise ValueError(f"expected version {VERSION}, got {version!r}; a newer version needs a newer sparsemeta")
        if missing := {"layers", "provenance", "sha256"} - metadata.keys():
            raise ValueError(f"expected {', '.join(sorted(missing))} in its metadata, got only {sorted(metadata)}")
        names = list(file.keys())  # noqa: SIM118  a safe_open is no mapping
        if wrong := {name: t for name in names if (t := file.get_slice(name).get_dtype()) != "U8"}:
            raise ValueError(f"expected tensors of U8, got {wrong}")
        bits = {name: file.get_tensor(name) for name in names}
    if metadata["sha256"] != _digest(metadata, bits):
        raise ValueError(f"expected contents of sha256 {metadata['sha256']}, got {_digest(metadata, bits)}")
    return metadata, bits


def _sizes(text: str) -> Sizes:
    """Shape and block of each layer, small enough to unpack."""
    sizes = {}
    for name, layer in _json_object("layers", text).items():
        if not isinstance(layer, dict) or not all(isinstance(layer.get(key), list) for key in ("shape", "block")):
            raise ValueError(f"expected a shape and a block for {name!r}, each a list of integers, got {layer!r}")
        sizes[name] = tuple(layer["shape"]), tuple(layer["block"])
        check_sizes(*sizes[name])
    _check_total(sum(math.prod(shape) for shape, _ in sizes.values()))
    return sizes


def _check_total(weights: int) -> None:
    if weights > MAX_WEIGHTS:
        raise TicketError(f"expected a ticket of at most {MAX_WEIGHTS} weights, got {weights}; split it in several")


def _json_object(what: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected {what} in JSON, got {text[:80]!r} ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"expected {what} as a JSON object, got {text[:80]!r}")
    return value


def _digest(metadata: Mapping[str, str], bits: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256("\0".join((metadata["layers"], metadata["provenance"])).encode())
    for name in sorted(bits):
        digest.update(bits[name].tobytes())
    return digest.hexdigest()
