"""Data sets that come as folders, archives, tables or caches of images, on small trees that the test makes."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sparsemeta.data import cifar_fs, image_folder, mini_imagenet, split_folders
from sparsemeta.data.cifar_fs_split import SPLIT

pytestmark = pytest.mark.usefixtures("cache")
PARTS = {"train": ["n01", "n02"], "val": ["n03"], "test": ["n04"]}


def pixels(seed: int, side: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def encoded(image: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


FILES = {f"{name}/{i}.png": encoded(pixels(10 * c + i)) for c, name in enumerate(["bee", "ant"]) for i in range(3)}
EXPECTED = [pixels(10 * c + i).transpose(2, 0, 1) for c in (1, 0) for i in range(3)]  # classes sorted by name


def test_a_folder_and_an_archive_give_the_same(tmp_path):
    junk = {".hidden/x.png": b"", "bee/notes.txt": b"", "bee/._0.png": b"", "__MACOSX/bee/0.png": b""}
    folder = image_folder(write(tmp_path / "a", {**FILES, **junk}))
    archive = image_folder(zipped(tmp_path / "a.zip", {**FILES, **junk}))
    assert folder.names == archive.names == ["ant", "bee"] and folder.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert torch.equal(folder.images, torch.tensor(np.stack(EXPECTED))) and torch.equal(folder.images, archive.images)


def test_size_grey_and_inversion(tmp_path):
    images = image_folder(write(tmp_path / "a", FILES), size=(4, 6), channels=1, invert=True)
    grey = Image.fromarray(255 - np.asarray(Image.fromarray(pixels(10)).convert("L")))
    assert images.image_shape == (1, 4, 6)
    expected = np.asarray(grey.resize((6, 4), Image.Resampling.LANCZOS))
    assert np.array_equal(images.images[0, 0].numpy(), expected)


def test_decoded_once_and_again_after_a_change(tmp_path, cache):
    root = write(tmp_path / "a", FILES)
    image_folder(root)
    assert len(list(cache.iterdir())) == 1
    kept = next(cache.iterdir())
    before = kept.stat().st_mtime_ns
    image_folder(root)
    assert kept.stat().st_mtime_ns == before and len(list(cache.iterdir())) == 1
    write(root, {"cat/0.png": encoded(pixels(3))})
    assert image_folder(root).names == ["ant", "bee", "cat"]


def test_jpeg_is_read(tmp_path):
    smooth = np.full((8, 8, 3), 200, np.uint8)
    images = image_folder(write(tmp_path / "a", {"x/1.JPEG": encoded(smooth, "JPEG")}))
    assert (images.images.int() - 200).abs().max() <= 2


@pytest.mark.parametrize(
    ("files", "message"),
    [({"a/x.png": b"no image"}, "a/x.png in .*expected an image; got another kind of file"),
     ({"a/x.png": encoded(pixels(0)), "b/x.png": encoded(pixels(0, 9))}, "expected 8x8 pixels .*got 9x9. Pass size="),
     ({"x.png": encoded(pixels(0))}, "expected images as class/x.png .*got none")],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path, files, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        image_folder(write(tmp_path / "a", files))
    with pytest.raises(FileNotFoundError, match="expected a folder or a zip archive"):
        image_folder(tmp_path / "missing")


def test_split_folders(tmp_path):
    files = {f"{part}/{name}/1.png": encoded(pixels(1)) for part, names in PARTS.items() for name in names}
    assert {p: s.names for p, s in split_folders(write(tmp_path, files))._asdict().items()} == PARTS


CIFAR = {f"cifar100/data/{c}/{c}_{i}.png": encoded(pixels(i, 32)) for c in ["bee", "sea", "man"] for i in (1, 2)}
LISTS = {"train": "bee\n", "val": "sea\n", "test": "man\n"}
CIFAR |= {f"cifar100/splits/bertinetto/{part}.txt": text.encode() for part, text in LISTS.items()}


@pytest.mark.parametrize("form", ["zip", "folder"])
def test_cifar_fs_reads_archive_and_folder(tmp_path, form):
    zipped(tmp_path / "cifar100.zip", CIFAR) if form == "zip" else write(tmp_path, CIFAR)
    splits = cifar_fs(tmp_path)
    assert [part.names for part in splits] == [["bee"], ["sea"], ["man"]]
    assert torch.equal(splits.val.images[1], torch.tensor(pixels(2, 32).transpose(2, 0, 1)))


def test_cifar_fs_names_a_class_without_images_and_a_missing_archive(tmp_path):
    with pytest.raises(FileNotFoundError, match="cifar100.zip"):
        cifar_fs(tmp_path)
    write(tmp_path, {**CIFAR, "cifar100/splits/bertinetto/val.txt": b"sea tractor"})
    with pytest.raises(ValueError, match=r"expected images of \['tractor'\]"):
        cifar_fs(tmp_path)


def test_cifar_fs_reads_the_official_archive(tmp_path, monkeypatch):
    import sys

    monkeypatch.setattr(sys.modules["sparsemeta.data.cifar_fs"], "PER_CLASS", 2)
    records = np.random.default_rng(0).integers(0, 256, (200, 2 + 3072), np.uint8)
    records[:, 1] = np.random.default_rng(1).permutation(np.arange(200) % 100)
    with tarfile.open(tmp_path / "cifar-100-binary.tar.gz", "w:gz") as tar:
        for part, rows in (("train", records[:150]), ("test", records[150:])):
            entry = tarfile.TarInfo(f"cifar-100-binary/{part}.bin")
            entry.size = rows.size
            tar.addfile(entry, io.BytesIO(rows.tobytes()))
    splits = cifar_fs(tmp_path)
    assert [len(part) for part in splits] == [64, 16, 20] and splits.train.names == SPLIT["train"]
    wanted = records[records[:, 1] == sorted(sum(SPLIT.values(), [])).index("worm")][:, 2:]
    assert np.array_equal(splits.test.images[-2:].numpy(), wanted.reshape(2, 3, 32, 32))


def tables(root: Path) -> Path:
    files, i = {}, 0
    for part, names in PARTS.items():
        lines = ["filename,label"]
        for name in names:
            for _ in range(2):
                files[f"images/{name}{i:04d}.jpg"] = encoded(pixels(i, 10))
                lines.append(f"{name}{i:04d}.jpg,{name}")
                i += 1
        files[f"{part}.csv"] = "\n".join(lines).encode()
    return write(root, files)


def test_mini_imagenet_as_images_and_tables(tmp_path):
    splits = mini_imagenet(tables(tmp_path), size=6)
    assert {p: s.names for p, s in splits._asdict().items()} == PARTS and splits.train.image_shape == (3, 6, 6)
    expected = Image.fromarray(pixels(4, 10)).resize((6, 6), Image.Resampling.LANCZOS)
    assert np.array_equal(splits.val.images[0].numpy(), np.asarray(expected).transpose(2, 0, 1))
    (tmp_path / "images" / "n010000.jpg").unlink()
    with pytest.raises(ValueError, match=r"expected lines filename,label .*n010000.jpg"):
        mini_imagenet(tmp_path, size=6)


def test_mini_imagenet_as_folders(tmp_path):
    write(tmp_path, {f"{part}/{name}/1.png": encoded(pixels(1)) for part, names in PARTS.items() for name in names})
    assert {p: s.names for p, s in mini_imagenet(tmp_path, size=8)._asdict().items()} == PARTS
    with pytest.raises(FileNotFoundError, match="expected images and .*got no such folder"):
        mini_imagenet(tmp_path / "nothing")


def caches(root: Path, protocol: int, key=str) -> Path:
    root.mkdir(exist_ok=True)
    for part, names in PARTS.items():
        images = np.stack([pixels(i) for i in range(2 * len(names))])
        rows = {key(name): list(range(i, 2 * len(names), len(names))) for i, name in enumerate(names)}
        content = {"image_data": images, "class_dict": rows}
        (root / f"mini-imagenet-cache-{part}.pkl").write_bytes(pickle.dumps(content, protocol))
    return root


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_mini_imagenet_as_caches(tmp_path, protocol):
    splits = mini_imagenet(caches(tmp_path, protocol), size=8)
    assert {p: s.names for p, s in splits._asdict().items()} == PARTS
    assert np.array_equal(splits.train.images[1].numpy(), pixels(2).transpose(2, 0, 1))  # n01 has rows 0 and 2
    assert mini_imagenet(tmp_path, size=4).train.image_shape == (3, 4, 4)


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("made-by-a-pickle",)


@pytest.mark.parametrize(
    "content",
    [Hostile(), {"image_data": Hostile()}, np.array([Hostile()], object), {"image_data": np.zeros(3)}, [1],
     {"image_data": np.zeros((1, 8, 8, 3), np.uint8), "class_dict": {"a": [5]}}],
)  # fmt: skip
def test_a_pickle_that_is_no_cache_runs_nothing(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    caches(tmp_path, 4)
    (tmp_path / "mini-imagenet-cache-train.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match="mini-imagenet-cache-train.pkl; got .*images and CSV files"):
        mini_imagenet(tmp_path, size=8)
    assert not (tmp_path / "made-by-a-pickle").exists()


@pytest.mark.skipif("SPARSEMETA_DATA" not in os.environ, reason="SPARSEMETA_DATA names no folder with real archives")
def test_real_cifar_fs():
    splits = cifar_fs(os.environ["SPARSEMETA_DATA"])
    assert [len(part) for part in splits] == [64, 16, 20] and splits.train.image_shape == (3, 32, 32)
    assert [part.names for part in splits] == list(SPLIT.values())
