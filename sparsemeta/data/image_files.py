"""The files of a data set, read from its official zip archive or from the folder it unpacks to."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

LARGEST = 1 << 22  # bytes: far above any image of a few-shot data set, far below what fills the memory


@dataclass(frozen=True)
class ImageFiles:
    """Files by name, ``<part>/...`` with forward slashes. Nothing is ever unpacked to disk.

    Attributes:
        source: the archive or folder, for messages.
        sizes: bytes of each file.
    """

    source: Path
    sizes: dict[str, int]
    _read: Callable[[str], bytes]

    def read(self, name: str) -> bytes:
        """The content of one file. Raises ``ValueError`` for a damaged entry, or one larger than any image."""
        if self.sizes[name] > LARGEST:
            raise ValueError(
                f"expected an image of at most {LARGEST} bytes as {name} in {self.source}; got {self.sizes[name]}. "
                "Use the official archive"
            )
        try:
            return self._read(name)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # RuntimeError: an encrypted entry
            raise ValueError(f"cannot read {name} in {self.source}: {error}. Download the archive again") from error


@contextmanager
def open_files(root: Path, part: str, suffixes: Sequence[str] = (".png",)) -> Iterator[ImageFiles]:
    """The files of ``root/<part>.zip`` if it is there, else those with ``suffixes`` of the folder ``root/<part>``.

    Raises ``FileNotFoundError`` if neither is there, ``ValueError`` if the archive is no zip file.
    """
    archive, folder = root / f"{part}.zip", root / part
    if archive.is_file():
        with open_zip(archive) as files:
            yield files
    elif folder.is_dir():
        yield in_folder(folder, suffixes, root)
    else:
        found = sorted(entry.name for entry in root.iterdir())[:8] if root.is_dir() else "no such folder"
        raise FileNotFoundError(
            f"expected {archive.name} or the folder {part} in {root}; got {found}. "
            "Download the official archive into that folder, or pass the folder that holds it"
        )


def in_folder(folder: Path, suffixes: Sequence[str], root: Path | None = None) -> ImageFiles:
    """The files with ``suffixes`` at any depth of ``folder``, named from ``root``, by default ``folder``."""
    root = root or folder
    found = (file for file in folder.rglob("*") if file.suffix.lower() in suffixes)
    sizes = {file.relative_to(root).as_posix(): file.stat().st_size for file in found}
    return ImageFiles(folder, sizes, lambda name: (root / name).read_bytes())


@contextmanager
def open_zip(archive: Path) -> Iterator[ImageFiles]:
    """The files of a zip archive. Raises ``ValueError`` if it is none."""
    try:
        zipped = zipfile.ZipFile(archive)
    except zipfile.BadZipFile as error:
        raise ValueError(f"expected a zip archive; got {archive}: {error}. Download it again") from error
    with zipped:
        yield ImageFiles(archive, {entry.filename: entry.file_size for entry in zipped.infolist()}, zipped.read)
