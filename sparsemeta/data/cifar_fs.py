"""CIFAR-FS: the 100 classes of CIFAR-100 as a few-shot data set."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsemeta.data.cache import cached_images
from sparsemeta.data.cifar_fs_split import SPLIT
from sparsemeta.data.decode import Decoding, Entry, read_classes
from sparsemeta.data.image_classes import ImageClasses, Splits
from sparsemeta.data.image_files import ImageFiles, open_files

SIDE, PER_CLASS = 32, 600
BINARY = "cifar-100-binary.tar.gz"  # the official archive without pickle
RECORD = 2 + 3 * SIDE * SIDE  # bytes: coarse label, fine label, then red, green and blue plane


def cifar_fs(root: str | PathLike[str], device: Any = "cpu") -> Splits:
    """CIFAR-FS (Bertinetto et al. 2019, arXiv 1805.08136): 64 / 16 / 20 classes of 32x32 colour images.

    Read once and kept in the user's cache folder.

    Args:
        root: folder with ``cifar100.zip`` or the folder ``cifar100`` that it unpacks to (``data/<class>/*.png``,
            ``splits/bertinetto/{train,val,test}.txt``); or with CIFAR-100's official ``cifar-100-binary.tar.gz``,
            which ``sparsemeta data download cifar-fs`` fetches. It may be read-only.
        device: where the images are to lie.

    Returns:
        Splits: images uint8 ``[M, 3, 32, 32]``, 600 a class in the official archives.

    Raises:
        FileNotFoundError: neither is there.
        ValueError: a damaged archive or image, or a class without images.
    """
    root = Path(root)
    if (root / BINARY).is_file() and not (root / "cifar100.zip").is_file():
        return parts(_official(root / BINARY), SPLIT, device)
    with open_files(root, "cifar100", (".png", ".txt")) as files:
        split = {part: _listed(files, part) for part in Splits._fields}
        wanted = {name for names in split.values() for name in names}
        entries = [e for e in _pictures(files) if e.label in wanted]
        if missing := sorted(wanted - {entry.label for entry in entries}):
            raise ValueError(f"expected images of {missing[:5]} in {files.source}; got none. Download it completely")
        return parts(read_classes("cifar-fs", entries, Decoding((SIDE, SIDE))), split, device)


def parts(images: ImageClasses, split: dict[str, Sequence[str]], device: Any) -> Splits:
    """Train, validation and test classes on ``device``."""
    return Splits(*(images.subset(split[part]).to(device) for part in Splits._fields))


def _listed(files: ImageFiles, part: str) -> Sequence[str]:
    name = f"cifar100/splits/bertinetto/{part}.txt"
    return files.read(name).decode().split() if name in files.sizes else SPLIT[part]


def _pictures(files: ImageFiles) -> list[Entry]:
    paths = [name.split("/") for name in files.sizes if name.startswith("cifar100/data/") and name.endswith(".png")]
    return [Entry(path[2], "/".join(path), files) for path in paths if len(path) == 4 and path[3][0] != "."]


def _official(archive: Path) -> ImageClasses:
    key = hashlib.sha256(f"{archive.stat().st_size}".encode()).hexdigest()[:16]
    names = sorted(name for names in SPLIT.values() for name in names)  # fine labels are numbered in this order
    images = cached_images(f"cifar-100-{key}", (len(names) * PER_CLASS, 3, SIDE, SIDE), lambda: _read_binary(archive))
    return ImageClasses(images, torch.arange(len(names)).repeat_interleave(PER_CLASS), names)


def _read_binary(archive: Path) -> Tensor:
    """Images sorted by fine label."""
    try:
        with tarfile.open(archive) as tar:
            data = b"".join(tar.extractfile(f"cifar-100-binary/{part}.bin").read() for part in ("train", "test"))
        records = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
    except (tarfile.TarError, OSError, EOFError, KeyError, ValueError) as error:
        raise ValueError(f"expected CIFAR-100's official archive as {archive}; got {error}. Download again") from error
    if (counts := np.bincount(records[:, 1], minlength=100)).tolist() != [PER_CLASS] * 100:
        raise ValueError(f"expected {PER_CLASS} images of each class in {archive}; got {counts[:5]}... Download again")
    order = np.argsort(records[:, 1], kind="stable")
    return torch.from_numpy(records[order, 2:].reshape(-1, 3, SIDE, SIDE).copy())
