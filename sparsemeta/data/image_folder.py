"""Any folder or zip archive with one folder of images a class."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any

from sparsemeta.data.decode import SUFFIXES, Decoding, Entry, read_classes
from sparsemeta.data.image_classes import ImageClasses, Splits
from sparsemeta.data.image_files import ImageFiles, in_folder, open_zip


def image_folder(
    root: str | PathLike[str],
    size: int | tuple[int, int] | None = None,
    channels: int = 3,
    invert: bool = False,
    device: Any = "cpu",
) -> ImageClasses:
    """The images of a folder, or of a zip archive, in which each class is a folder: ``class/x.png``.

    Decoded once and kept in the user's cache folder. Hidden files are left out.

    Args:
        root: the folder or archive; PNG, JPEG, BMP, GIF and WebP are read. A class within a folder, such as
            ``alphabet/character/x.png``, is named by its path.
        size: height and width to resize to; None where all images have one size.
        channels: 3 for colour, 1 for grey.
        invert: make dark strokes on bright paper bright ones on black.
        device: where the images are to lie.

    Returns:
        ImageClasses: uint8 ``[M, channels, H, W]``, classes sorted by name.

    Raises:
        FileNotFoundError: no such folder, or no image in a class folder there.
        ValueError: a file that is no image; sizes that differ where ``size`` is None.
    """
    with opened(Path(root)) as files:
        return read_classes("folder", class_entries(files), Decoding(sides(size), channels, invert), device)


def split_folders(root: str | PathLike[str], **options: Any) -> Splits:
    """``image_folder`` of each of ``root/train``, ``root/val`` and ``root/test``."""
    return Splits(*(image_folder(Path(root) / part, **options) for part in Splits._fields))


def sides(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """Height and width."""
    return (size, size) if isinstance(size, int) else None if size is None else tuple(size)


@contextmanager
def opened(root: Path) -> Iterator[ImageFiles]:
    """The image files below a folder or in an archive."""
    if root.is_file():
        with open_zip(root) as files:
            yield files
    elif root.is_dir():
        yield in_folder(root, SUFFIXES)
    else:
        raise FileNotFoundError(f"expected a folder or a zip archive at {root}; there is none. Check the path")


def class_entries(files: ImageFiles) -> list[Entry]:
    """Each image with its folder as class. Raises ``FileNotFoundError`` if there is none."""
    paths = [PurePosixPath(name) for name in files.sizes]
    images = [path for path in paths if is_image(path) and len(path.parts) > 1]
    entries = [Entry(str(path.parent), str(path), files) for path in images]
    if not entries:
        raise FileNotFoundError(
            f"expected images as class/x.png in {files.source}; got none ({len(files.sizes)} other files). "
            "Give each class a folder, and pass the folder that holds those"
        )
    return entries


def is_image(path: PurePosixPath) -> bool:
    """By its name, and not hidden."""
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden
