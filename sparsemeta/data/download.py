"""Fetches a file: whole and as its checksum says, or not at all."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHUNK = 1 << 20  # bytes
Advance = Callable[[int, "int | None"], Any]  # takes bytes so far, and in all where the server says


class DownloadError(OSError):
    """A file that could not be fetched; what to do is in the message."""


def fetch(url: str, path: Path, checksum: str, timeout: float = 30, advance: Advance = lambda *_: None) -> None:
    """Download ``url`` to ``path``, unless it is there already.

    It is written beside ``path`` and takes that name when its checksum holds. What an interrupted download has left
    is continued where the server can.

    Args:
        checksum: ``"md5:..."`` or ``"sha256:..."`` of the whole file.
        timeout: seconds without any answer.
        advance: called with the progress.

    Raises:
        DownloadError: no network, no such file, an end before the end, another checksum. ``path`` is as it was.
    """
    if path.exists():
        if matches(path, checksum):
            return
        raise DownloadError(f"expected {checksum} of {path}, which is there; it is another file. Move it away")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        _receive(url, part, timeout, advance)
    except urllib.error.HTTPError as error:
        raise DownloadError(_said(url, f"status {error.code} {error.reason}", path)) from error
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(_said(url, getattr(error, "reason", None) or error, path)) from error
    if not matches(part, checksum):
        part.unlink()
        raise DownloadError(f"expected {checksum} of {url}; got another file, which is removed. Try again later")
    part.replace(path)


def matches(path: Path, checksum: str) -> bool:
    """Whether the file has this checksum."""
    algorithm, _, expected = checksum.partition(":")
    digest = hashlib.new(algorithm, usedforsecurity=False)  # an md5 is what some sources publish
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest() == expected


def _receive(url: str, part: Path, timeout: float, advance: Advance) -> None:
    """The rest of ``url`` to ``part``, or all of it where the server does not give parts."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is left to fetch, or it is no part of this file: the checksum tells
            return
        raise
    with response, open(part, "ab" if response.status == 206 else "wb") as file:
        length = response.headers.get("Content-Length")
        total = file.tell() + int(length) if length else None
        while chunk := response.read(CHUNK):
            file.write(chunk)
            advance(file.tell(), total)
        if total is not None and file.tell() < total:
            raise OSError(f"the connection ended after {file.tell()} of {total} bytes")


def _said(url: str, reason: Any, path: Path) -> str:
    return f"could not download {url}: {reason}. Try again: it goes on from there; or put the file at {path} yourself"
