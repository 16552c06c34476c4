"""From image files to the uint8 tensor that a data set is."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from sparsemeta.data.cache import cached_images
from sparsemeta.data.image_classes import ImageClasses
from sparsemeta.data.image_files import ImageFiles

FORMAT = 1  # of the cached images; raise it when decoding changes
SUFFIXES = ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"


@dataclass(frozen=True)
class Decoding:
    """How a file becomes an image: a model that was trained on such images must be shown such images.

    Attributes:
        size: height and width in pixels; None for the size that they have, which must then be one.
        channels: 3 for colour, 1 for grey.
        invert: bright strokes from dark ones on paper.
    """

    size: tuple[int, int] | None = None
    channels: int = 3
    invert: bool = False

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ValueError(f"expected channels to be 1 (grey) or 3 (colour); got {self.channels!r}")
        sides = (1, 1) if self.size is None else self.size
        if len(sides) != 2 or not all(isinstance(side, int) and side >= 1 for side in sides):
            raise ValueError(f"expected size to be two numbers of pixels, each at least 1, or None; got {self.size!r}")

    def __call__(self, data: bytes) -> np.ndarray:
        """One file's content to uint8 ``[H, W, channels]``. Raises ``ValueError`` if it is no image."""
        try:
            image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB" if self.channels == 3 else "L")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            got = "another kind of file" if isinstance(error, UnidentifiedImageError) else error
            raise ValueError(f"expected an image; got {got}") from error
        if self.invert:
            image = ImageOps.invert(image)
        if self.size is not None and image.size != self.size[::-1]:
            image = image.resize(self.size[::-1], Image.Resampling.LANCZOS)
        pixels = np.asarray(image)
        return pixels if pixels.ndim == 3 else pixels[:, :, None]


class Entry(NamedTuple):
    """One image of a data set: its class, its name among ``files``."""

    label: str
    name: str
    files: ImageFiles


def read_classes(key: str, entries: Sequence[Entry], decoding: Decoding, device: Any = "cpu") -> ImageClasses:
    """All ``entries``, sorted, as one tensor; decoded once and then kept in the user's cache under ``key``.

    Raises ``ValueError`` for a file that is no image, or of another size than the first where none is asked for.
    """
    entries = sorted(entries, key=lambda entry: entry[:2])
    names = sorted({entry.label for entry in entries})
    height, width = decoding.size or _pixels(entries[0], decoding).shape[:2]
    shape = (len(entries), decoding.channels, height, width)
    images = cached_images(f"{key}-{_digest(entries, decoding)}", shape, lambda: _decode(entries, decoding, shape))
    place = {name: i for i, name in enumerate(names)}
    return ImageClasses(images, torch.tensor([place[entry.label] for entry in entries]), names).to(device)


def _digest(entries: Sequence[Entry], decoding: Decoding) -> str:
    """Another as soon as a file is added, lost or resized."""
    listing = "".join(f"{entry.label} {entry.name} {entry.files.sizes[entry.name]}\n" for entry in entries)
    return hashlib.sha256(f"{FORMAT} {decoding} {listing}".encode()).hexdigest()[:16]


def _decode(entries: Sequence[Entry], decoding: Decoding, shape: tuple[int, int, int, int]) -> Tensor:
    images = np.empty(shape, np.uint8)
    for image, entry in zip(images, entries, strict=True):
        pixels = _pixels(entry, decoding)
        if pixels.shape[:2] != shape[2:]:
            raise ValueError(
                f"{entry.name} in {entry.files.source}: expected {shape[2]}x{shape[3]} pixels as in the first image; "
                f"got {pixels.shape[0]}x{pixels.shape[1]}. Pass size="
            )
        image[:] = pixels.transpose(2, 0, 1)
    return torch.from_numpy(images)


def _pixels(entry: Entry, decoding: Decoding) -> np.ndarray:
    try:
        return decoding(entry.files.read(entry.name))
    except ValueError as error:
        raise ValueError(f"{entry.name} in {entry.files.source}: {error}. Remove or replace it") from error
