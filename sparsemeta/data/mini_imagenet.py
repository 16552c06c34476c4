"""miniImageNet: 100 classes of ImageNet, 600 images each."""

from __future__ import annotations

import csv
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sparsemeta.data.array_pickle import read_arrays
from sparsemeta.data.cache import cached_images
from sparsemeta.data.decode import SUFFIXES, Decoding, Entry, read_classes
from sparsemeta.data.image_classes import ImageClasses, Splits
from sparsemeta.data.image_files import ImageFiles, in_folder
from sparsemeta.data.image_folder import split_folders

CACHE = "mini-imagenet-cache-{}.pkl"


def mini_imagenet(root: str | PathLike[str], size: int = 84, device: Any = "cpu") -> Splits:
    """miniImageNet (Vinyals et al. 2016, arXiv 1606.04080) in the split of Ravi and Larochelle 2017.

    Read once and kept in the user's cache folder.

    Args:
        root: folder in one of three layouts: the folder ``images`` with ``train.csv``, ``val.csv`` and ``test.csv``
            (``filename,label``); the folders ``train``, ``val`` and ``test``, with one folder a class; or the three
            ``mini-imagenet-cache-{train,val,test}.pkl``, which are read without running anything that they say.
        size: height and width of the images in pixels.
        device: where the images are to lie.

    Returns:
        Splits: images uint8 ``[M, 3, size, size]``; 64 / 16 / 20 classes of 600 in the whole data set.

    Raises:
        FileNotFoundError: none of the layouts is there.
        ValueError: a file that is no image, or a table or cache that is none.
    """
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"size must be at least 1 pixel; got {size}. The usual is 84")
    root = Path(root)
    if all((root / f"{part}.csv").is_file() for part in Splits._fields):
        files = in_folder(root / "images", SUFFIXES)
        return Splits(*(_from_table(root / f"{part}.csv", files, size, device) for part in Splits._fields))
    if all((root / part).is_dir() for part in Splits._fields):
        return split_folders(root, size=size, device=device)
    if all((root / CACHE.format(part)).is_file() for part in Splits._fields):
        return Splits(*(_from_cache(root / CACHE.format(part), size).to(device) for part in Splits._fields))
    found = sorted(entry.name for entry in root.iterdir())[:8] if root.is_dir() else "no such folder"
    raise FileNotFoundError(
        f"expected images and {{train,val,test}}.csv, or folders train, val and test, or {CACHE.format('*')} "
        f"in {root}; got {found}. Pass the folder that holds them; `sparsemeta data list` says where they are from"
    )


def _from_table(table: Path, files: ImageFiles, size: int, device: Any) -> ImageClasses:
    place = {PurePosixPath(name).name: name for name in files.sizes}
    with open(table, newline="", encoding="utf-8") as file:
        rows = [(row.get("filename"), row.get("label")) for row in csv.DictReader(file)]
    if not rows or not all(label and name in place for name, label in rows):
        wrong = next((row for row in rows if not (row[1] and row[0] in place)), "no row")
        raise ValueError(
            f"expected lines filename,label of images in {files.source} in {table}; got {wrong}. "
            "Unpack all images, or take the table that belongs to them"
        )
    entries = [Entry(label, place[name], files) for name, label in rows]
    return read_classes("mini-imagenet", entries, Decoding((size, size)), device)


def _from_cache(file: Path, size: int) -> ImageClasses:
    content = read_arrays(file)
    try:
        images, classes = content["image_data"], {str(name): list(rows) for name, rows in content["class_dict"].items()}
        order = [row for name in sorted(classes) for row in classes[name]]
        if images.ndim != 4 or images.shape[3] != 3 or not order or not all(0 <= row < len(images) for row in order):
            raise ValueError(f"images {list(images.shape)} and {len(order)} rows")
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"expected image_data, uint8 [M, H, W, 3], and class_dict, rows by class, in {file}; got {error}. "
            "Take the original cache file, or use the images and CSV files"
        ) from error
    key = f"mini-imagenet-{file.stem}-{size}-{file.stat().st_size}-{int(file.stat().st_mtime)}"
    kept = cached_images(key, (len(order), 3, size, size), lambda: _resized(images[order], size))
    counts = torch.tensor([len(classes[name]) for name in sorted(classes)])
    return ImageClasses(kept, torch.arange(len(counts)).repeat_interleave(counts), sorted(classes))


def _resized(images: np.ndarray, size: int) -> Tensor:
    """``[M, H, W, 3]`` to ``[M, 3, size, size]``."""
    if images.shape[1:3] != (size, size):
        resized = (Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS) for image in images)
        images = np.stack([np.asarray(image) for image in resized])
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
