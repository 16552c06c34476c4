"""Files that are at every moment the old one or the whole new one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A new file beside `path` to write to, which takes its place when the block ends; an error leaves `path` alone.

    Raises:
        FileNotFoundError: there is no folder for it.
        IsADirectoryError: `path` is a folder itself.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"expected a folder for {path}, got none at {path.parent}; make it first")
    if path.is_dir():
        raise IsADirectoryError(f"expected a file to write, got the folder {path}; add a name")
    temporary = path.with_name(f".{os.getpid()}.{path.name}")  # with the suffix, from which plots take their format
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())  # or a power cut could leave the new name on an empty file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write `data` so that `path` is at every moment the old file or the whole new one."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)
