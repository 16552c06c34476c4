"""A small Omniglot with the official names, written where a test wants it."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sparsemeta.data import Splits, omniglot

ALPHABETS = ("images_background/Elvish", "images_background/Klingon", "images_evaluation/Morse")
CHARACTERS, DRAWINGS = 3, 2  # of each alphabet, of each character


def png(seed: int = 0, side: int = 105, kind: str = "PNG") -> bytes:
    """Black specks on white, one bit a pixel."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).random((side, side)) > 0.1).save(buffer, kind)
    return buffer.getvalue()


class OmniglotTree:
    """9 characters of 2 drawings, all different; ``files`` may be changed before they are written below ``root``."""

    split = (5, 1, 3)
    drawings = DRAWINGS

    def __init__(self, root: Path):
        self.root = root
        self.files = {}
        for character in (f"{a}/character{c:02d}" for a in ALPHABETS for c in range(1, CHARACTERS + 1)):
            for drawing in range(1, DRAWINGS + 1):
                seed = len(self.files) + 1
                self.files[f"{character}/{seed:04d}_{drawing:02d}.png"] = png(seed)

    def zipped(self) -> OmniglotTree:
        self.root.mkdir(exist_ok=True)
        for part in ("images_background", "images_evaluation"):
            with zipfile.ZipFile(self.root / f"{part}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                for name, data in self.files.items():
                    if part in name:
                        archive.writestr(name, data)
        return self

    def unpacked(self) -> OmniglotTree:
        for name, data in self.files.items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_bytes(data)
        return self

    def load(self, **options) -> Splits:
        return omniglot(self.root, **{"split": self.split, "rotations": False, **options})


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SPARSEMETA_CACHE", str(tmp_path / "cache"))  # never the cache of whoever runs the tests
    return tmp_path / "cache"


@pytest.fixture
def tree(tmp_path, cache) -> OmniglotTree:
    return OmniglotTree(tmp_path / "data")


@pytest.fixture
def make_png():
    return png
