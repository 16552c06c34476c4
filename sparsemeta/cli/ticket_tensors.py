"""State dicts and masks as plain safetensors, which any other program can read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from sparsemeta.files import write_atomically


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors by name. Raises `FileNotFoundError`, or `ValueError` for another kind of file."""
    try:
        return load(path.read_bytes())
    except SafetensorError as error:
        raise ValueError(
            f"expected a safetensors file of a state dict, got {path}: {error}; write one with "
            f"safetensors.torch.save_file(model.state_dict(), path)"
        ) from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor], provenance: Mapping[str, Any]) -> None:
    """Write them atomically, with the ticket's provenance as JSON in the file's metadata."""
    plain = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}  # no two may share memory there
    write_atomically(path, save(plain, {"provenance": json.dumps(dict(provenance))}))
