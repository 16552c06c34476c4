"""Checkpoints: one safetensors file with a JSON header, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..files import write_atomically

KEY, VERSION = "sparsemeta.checkpoint", 1


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or that belongs to another run."""


def save_checkpoint(path: str | Path, state: Any) -> None:
    """Write ``state``, of dicts, lists, tuples, tensors, numbers and text, to ``path``, replacing it in one go.

    Raises:
        TypeError: something else in ``state``, naming where; ``path`` is untouched.
    """
    path, tensors = Path(path), {}
    header = json.dumps({"version": VERSION, "state": packed(state, "", tensors)})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, save(tensors, {KEY: header}))  # save_file would keep it from everybody but the owner


def load_checkpoint(path: str | Path) -> Any:
    """The state that ``save_checkpoint`` wrote, tensors on the CPU.

    Raises:
        CheckpointError: no such file, or not a whole checkpoint of this version.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"expected a checkpoint at {path}; there is no such file. Check the path")
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {})[KEY])
            if header["version"] != VERSION:
                raise ValueError(f"version {header['version']}, expected {VERSION}")
            return unpacked(header["state"], file)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"expected a checkpoint written by sparsemeta at {path}; it is truncated or something else "
            f"({type(error).__name__}: {error}). Take another checkpoint, or start without resume"
        ) from error


def best_path(checkpoint: str | Path) -> Path:
    """Where the weights with the best validation are: ``run.best.safetensors`` beside ``run.safetensors``."""
    checkpoint = Path(checkpoint)
    return checkpoint.with_name(f"{checkpoint.stem}.best{checkpoint.suffix}")


def packed(node: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    """``node`` as JSON; its tensors go to ``tensors`` under their place. A container is [its kind, its items]."""
    if isinstance(node, Tensor):
        strided = not node.is_contiguous() and node.is_contiguous(memory_format=torch.channels_last)
        tensors[place] = node.detach().to("cpu", copy=True).contiguous()
        return ["channels_last" if strided else "tensor", place]
    if isinstance(node, Mapping):
        return ["dict", [[key, packed(value, f"{place}/{key}", tensors)] for key, value in node.items()]]
    if isinstance(node, (list, tuple)):
        items = [packed(value, f"{place}/{i}", tensors) for i, value in enumerate(node)]
        return ["list" if isinstance(node, list) else "tuple", items]
    if node is None or isinstance(node, (str, int, float)):
        return node
    raise TypeError(f"expected tensors, numbers, text, dicts and lists in a checkpoint; got {type(node)} at {place}")


def unpacked(node: Any, file: Any) -> Any:
    if not isinstance(node, list):
        return node
    kind, content = node
    if kind == "dict":
        return {key: unpacked(value, file) for key, value in content}
    if kind in ("list", "tuple"):
        return (list if kind == "list" else tuple)(unpacked(value, file) for value in content)
    layout = {"tensor": torch.contiguous_format, "channels_last": torch.channels_last}[kind]
    return file.get_tensor(content).contiguous(memory_format=layout)
