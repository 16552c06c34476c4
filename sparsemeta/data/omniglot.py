"""Omniglot: 1,623 handwritten characters of 50 alphabets, each drawn by 20 people."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from sparsemeta.data.cache import cached_images
from sparsemeta.data.image_classes import ImageClasses, Splits
from sparsemeta.data.image_files import ImageFiles, open_files

PARTS = "images_background", "images_evaluation"
SIDE = 105
FORMAT = 1  # of the cached images; raise it when decoding changes
# Names that start with a dot are no drawings: "..", hidden files, the "._" files of macOS.
DRAWING = re.compile(rf"(?:{'|'.join(PARTS)})/(?P<character>[^/.][^/]*/[^/.][^/]*)/[^/.][^/]*\.png")


def omniglot(
    root: str | PathLike[str],
    size: int = 28,
    rotations: bool = True,
    split: Sequence[int] = (1100, 100, 423),
    seed: int = 1,
    device: Any = "cpu",
) -> Splits:
    """Omniglot (Lake, Salakhutdinov, Tenenbaum 2015) in the few-shot form of Santoro et al. 2016 and Finn et al. 2017.

    All characters, sorted by name, are shuffled by ``seed`` and split; strokes are 1 and paper is 0; images are resized
    with antialiasing (Lanczos, as in MAML). The decoded images are kept in the user's cache folder, so that only the
    first start decodes them.

    Args:
        root: folder with the official ``images_background.zip`` and ``images_evaluation.zip``, or with the folders
            that they unpack to. It may be read-only.
        size: height and width of the images in pixels.
        rotations: add every character turned by 90, 180 and 270 degrees as further classes, in each part.
        split: characters for meta-training, validation and test.
        seed: of the shuffle.
        device: where the images are to lie.

    Returns:
        Splits: images uint8 ``[M, 1, size, size]``; 4,400 / 400 / 1,692 classes of 20 drawings with rotations.

    Raises:
        FileNotFoundError: an archive is missing.
        ValueError: a damaged archive or image; fewer characters than ``split`` asks for; ``size`` below 1.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel; got {size}. MAML takes 28")
    if len(split) != 3 or min(split) < 1:
        raise ValueError(f"split must count train, val and test characters; got {split}. The usual is (1100, 100, 423)")
    splits = _characters(Path(root), size, fewest=sum(split)).to(device).split(*split, seed=seed)
    return Splits(*(part.rotations() for part in splits)) if rotations else splits


def _characters(root: Path, size: int, fewest: int) -> ImageClasses:
    with ExitStack() as stack:
        parts = [stack.enter_context(open_files(root, part)) for part in PARTS]
        drawings = sorted(drawing for files in parts for drawing in _drawings(files))
        position = {name: i for i, name in enumerate(sorted({drawing.character for drawing in drawings}))}
        if len(position) < fewest:
            raise ValueError(
                f"expected {fewest} characters in {root}, as split asks for; got {len(position)}. "
                "Download both official archives completely, or pass a smaller split"
            )
        shape = (len(drawings), 1, size, size)
        images = cached_images(_cache_key(drawings, size), shape, lambda: _decode_all(drawings, size))
    labels = torch.tensor([position[drawing.character] for drawing in drawings])
    return ImageClasses(images, labels, list(position))


class _Drawing(NamedTuple):
    character: str
    name: str
    files: ImageFiles


def _drawings(files: ImageFiles) -> Iterator[_Drawing]:
    for name in files.sizes:
        if match := DRAWING.fullmatch(name):
            yield _Drawing(match["character"], name, files)


def _cache_key(drawings: Sequence[_Drawing], size: int) -> str:
    """The same for an archive and the folder it unpacks to; another as soon as a file is added, lost or resized."""
    listing = "".join(f"{drawing.name} {drawing.files.sizes[drawing.name]}\n" for drawing in drawings)
    return f"omniglot-{size}-v{FORMAT}-{hashlib.sha256(listing.encode()).hexdigest()[:16]}"


def _decode_all(drawings: Sequence[_Drawing], size: int) -> Tensor:
    return torch.from_numpy(np.stack([_decode(drawing, size) for drawing in drawings])).unsqueeze(1)


def _decode(drawing: _Drawing, size: int) -> np.ndarray:
    data = drawing.files.read(drawing.name)
    try:
        image = Image.open(io.BytesIO(data), formats=["PNG"])
        if image.size != (SIDE, SIDE):
            raise ValueError(f"an image of {image.size[0]}x{image.size[1]} pixels")
        strokes = ImageOps.invert(image.convert("L"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        got = "another kind of file" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(
            f"expected a {SIDE}x{SIDE} PNG as {drawing.name} in {drawing.files.source}; got {got}. "
            "Download the official archive again"
        ) from error
    return np.asarray(strokes.resize((size, size), Image.Resampling.LANCZOS))
