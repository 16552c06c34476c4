"""Decoded images, kept between runs in the user's cache folder."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..files import write_atomically


def cache_folder() -> Path:
    """``SPARSEMETA_CACHE`` (set where home is small, slow or read-only), else ``~/.cache/sparsemeta``."""
    folder = os.environ.get("SPARSEMETA_CACHE")
    return Path(folder) if folder else Path.home() / ".cache" / "sparsemeta"


def cached_images(key: str, shape: tuple[int, ...], build: Callable[[], Tensor]) -> Tensor:
    """The uint8 images kept under ``key``; if there are none, or not of this shape, those that ``build`` returns.

    A cache that cannot be written costs a warning and time, nothing else.
    """
    try:
        path = cache_folder() / f"{key}.safetensors"
    except RuntimeError as error:  # this user has no home folder
        return _warned(build(), error)
    images = _load(path)
    if images is not None and images.dtype == torch.uint8 and images.shape == shape:
        return images
    images = build()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, save({"images": images}))
    except OSError as error:
        return _warned(images, error)
    return images


def _load(path: Path) -> Tensor | None:
    try:
        return load(path.read_bytes())["images"]
    except (OSError, SafetensorError, KeyError):  # absent or damaged: it will be made again
        return None


def _warned(images: Tensor, error: Exception) -> Tensor:
    advice = "The next start will decode them again; set SPARSEMETA_CACHE to a folder you can write to"
    warnings.warn(f"could not keep the decoded images: {error}. {advice}", stacklevel=2)
    return images
