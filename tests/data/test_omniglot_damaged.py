"""omniglot on what is missing, damaged or hostile."""

from __future__ import annotations

import struct
import warnings
import zipfile
import zlib

import pytest
import torch
from PIL import Image

from sparsemeta.data import omniglot

FOREIGN = (
    "../../images_background/Evil/character01/0001_01.png",
    "/images_background/Evil/character01/0001_01.png",
    "images_background/../Evil/character01.png",
    "images_background/../../evil.png",
    "images_background/Evil/../0001_01.png",
    "images_background/Evil/character01/deeper/0001_01.png",
    "images_background/Elvish/character01/readme.txt",
    "images_background/Elvish/character01/._0001_01.png",
    "__MACOSX/images_background/Elvish/character01/0001_01.png",
    "images_background/.DS_Store",
    "images_background/Elvish/",
)


def test_foreign_entries_are_ignored_and_nothing_is_unpacked(tree, tmp_path):
    expected = tree.zipped().load()
    tree.files |= dict.fromkeys(FOREIGN, b"")
    for part, clean in zip(tree.zipped().load(), expected, strict=True):
        assert part.names == clean.names and torch.equal(part.images, clean.images)
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".png", ".txt")]


def bomb(png):
    """A small PNG file that claims 20,000 x 20,000 pixels."""
    header = b"IHDR" + struct.pack(">2I", 20_000, 20_000) + png()[24:29]
    return png()[:12] + header + struct.pack(">I", zlib.crc32(header)) + png()[33:]


NO_DRAWING = {
    "text": (lambda png: b"no image", "expected a 105x105 PNG as .*/0003_01.png in .*; got another kind of file"),
    "empty": (lambda png: b"", "expected a 105x105 PNG .*; got another kind of file"),
    "gif": (lambda png: png(kind="GIF"), "expected a 105x105 PNG .*; got another kind of file"),
    "truncated": (lambda png: png()[:-30], "expected a 105x105 PNG .*; got image file is truncated"),
    "small": (lambda png: png(side=104), "expected a 105x105 PNG .*; got an image of 104x104 pixels"),
    "bomb": (bomb, "expected a 105x105 PNG .*; got .*400000000 pixels"),
    "huge": (lambda png: bytes(5 << 20), "expected an image of at most 4194304 bytes .*; got 5242880"),
}


@pytest.mark.parametrize(("damage", "message"), NO_DRAWING.values(), ids=NO_DRAWING)
@pytest.mark.parametrize("write", ["zipped", "unpacked"])
def test_entries_that_are_no_drawing(tree, cache, make_png, write, damage, message):
    tree.files["images_background/Elvish/character02/0003_01.png"] = damage(make_png)
    getattr(tree, write)()
    with pytest.raises(ValueError, match=message), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # Pillow's own, ahead of our error
        tree.load()
    assert not cache.exists()


def test_entry_with_a_wrong_checksum(tree):
    archive = tree.zipped().root / "images_background.zip"
    whole = archive.read_bytes()
    with zipfile.ZipFile(archive) as zipped:
        start = zipped.infolist()[0].header_offset + 30 + len(zipped.namelist()[0])  # 30 bytes, the name, the data
    archive.write_bytes(whole[: start + 5] + bytes(20) + whole[start + 25 :])
    with pytest.raises(ValueError, match=r"cannot read .*\.png in .*Download the archive again"):
        tree.load()


def test_encrypted_entry(tree):
    archive = tree.zipped().root / "images_background.zip"
    whole = archive.read_bytes()
    flags = whole.index(b"PK\x01\x02") + 8  # of the first entry of the central directory
    archive.write_bytes(whole[:flags] + b"\x01" + whole[flags + 1 :])
    with pytest.raises(ValueError, match=r"cannot read .*encrypted.*Download the archive again"):
        tree.load()


@pytest.mark.parametrize("damage", [lambda whole: b"", lambda whole: b"<html>404</html>", lambda whole: whole[:2000]])
def test_archive_that_is_no_zip(tree, damage):
    archive = tree.zipped().root / "images_evaluation.zip"
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(ValueError, match="expected a zip archive; got .*images_evaluation.zip.*Download it again"):
        tree.load()


def test_missing_archive_or_folder(tree):
    with pytest.raises(FileNotFoundError, match="images_background.zip or the folder .*got no such folder. Download"):
        omniglot(tree.root)
    tree.root.mkdir()
    with pytest.raises(FileNotFoundError, match=r"got \[\]"):
        omniglot(tree.root)
    (tree.zipped().root / "images_evaluation.zip").unlink()
    with pytest.raises(FileNotFoundError, match=r"images_evaluation.*got \['images_background.zip'\]"):
        tree.load()


def test_too_few_characters(tree):
    with pytest.raises(ValueError, match=r"expected 1623 characters in .*; got 9. Download both"):
        omniglot(tree.zipped().root)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be at least 1 pixel; got 0"),
        ({"split": (5, 4)}, "split must count train, val and test characters"),
        ({"split": (5, 0, 3)}, "split must count train, val and test characters"),
    ],
)
def test_options_are_checked_before_anything_is_read(tree, options, message):
    with pytest.raises(ValueError, match=message):
        tree.load(**options)
