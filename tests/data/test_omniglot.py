"""omniglot on whole data: archives and folders, splits, rotations, the cache."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from sparsemeta.data import ImageClasses, omniglot


def same(a, b):
    return all(
        torch.equal(p.images, q.images) and torch.equal(p.labels, q.labels) and p.names == q.names
        for p, q in zip(a, b, strict=True)
    )


def test_split_sizes_and_images(tree):
    splits = tree.zipped().load()
    assert [len(part) for part in splits] == [5, 1, 3]
    names = [f"{a}/character{c:02d}" for a in ("Elvish", "Klingon", "Morse") for c in (1, 2, 3)]
    assert sorted(name for part in splits for name in part.names) == names
    for part in splits:
        assert isinstance(part, ImageClasses)
        assert part.image_shape == (1, 28, 28)
        assert part.counts.unique().tolist() == [tree.drawings]


def test_strokes_are_bright_and_belong_to_their_character(tree):
    part = tree.zipped().load(size=105).train
    mine = [data for path, data in tree.files.items() if part.names[2] in path]
    expected = np.stack([255 - np.asarray(Image.open(io.BytesIO(data)).convert("L")) for data in mine])
    assert np.array_equal(part.images[part.labels == 2, 0].numpy(), expected)
    assert 0.05 < part.images.float().mean() / 255 < 0.15


def test_seed_shuffles_the_characters(tree):
    tree.zipped()
    assert same(tree.load(), tree.load(seed=1))
    assert tree.load().train.names != tree.load(seed=2).train.names


def test_rotations_stay_within_their_part(tree):
    plain, turned = tree.zipped().load(), tree.load(rotations=True)
    assert [len(part) for part in turned] == [20, 4, 12]
    for p, t in zip(plain, turned, strict=True):
        assert {name.removesuffix("/rot180") for name in t.names if "/rot180" in name} == set(p.names)


def test_archives_and_folders_read_equal(tree, tmp_path, cache):
    zipped = tree.zipped().load()
    for kept in cache.iterdir():
        kept.unlink()
    tree.root = tmp_path / "folders"
    assert same(zipped, tree.unpacked().load())


def test_cached_images_are_used_for_the_same_size_only(tree, cache, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in tree.zipped().root.iterdir()}
    first = tree.load()
    assert [path.suffix for path in cache.iterdir()] == [".safetensors"]
    assert {path: path.stat().st_mtime_ns for path in tree.root.iterdir()} == before, "wrote beside the data"
    tree.load(size=14)
    assert len(list(cache.iterdir())) == 2
    monkeypatch.setattr(Image, "open", None)  # from here on decoding fails
    assert same(first, tree.load())


def test_changed_data_are_decoded_again(tree, make_png):
    before = tree.zipped().load()
    path = next(name for name in tree.files if before.train.names[0] in name)
    tree.files[path] = make_png(seed=999)
    after = tree.zipped().load()
    assert (before.train.images != after.train.images).flatten(1).any(1).sum() == 1


OTHER_SHAPE = save({"images": torch.zeros(18, 1, 14, 14, dtype=torch.uint8)})


@pytest.mark.parametrize(
    "damage", [lambda whole: b"no safetensors", lambda whole: whole[:-64], lambda whole: OTHER_SHAPE]
)
def test_damaged_cache_is_made_again(tree, cache, damage):
    first = tree.zipped().load()
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    assert same(first, tree.load())
    assert kept.read_bytes() == whole


def test_cache_that_cannot_be_written_only_warns(tree, cache):
    cache.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="could not keep the decoded images.*SPARSEMETA_CACHE"):
        assert len(tree.zipped().load().train) == 5


def test_cache_without_a_home_only_warns(tree, monkeypatch):
    def fail():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("SPARSEMETA_CACHE")
    monkeypatch.setattr(Path, "home", fail)
    with pytest.warns(UserWarning, match="home directory.*SPARSEMETA_CACHE"):
        assert len(tree.zipped().load().train) == 5


def test_cache_that_fails_midway_leaves_nothing(tree, cache, monkeypatch):
    def fail(*_):
        raise OSError("disk is full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.warns(UserWarning, match="disk is full"):
        tree.zipped().load()
    assert not list(cache.iterdir())


@pytest.mark.skipif("SPARSEMETA_DATA" not in os.environ, reason="SPARSEMETA_DATA names no folder with real archives")
def test_the_real_archives(cache):
    splits = omniglot(os.environ["SPARSEMETA_DATA"])
    assert [len(part) for part in splits] == [4400, 400, 1692]
    assert all(part.counts.unique().tolist() == [20] for part in splits)
    characters = [{name.split("/rot")[0] for name in part.names} for part in splits]
    assert len(set.union(*characters)) == sum(map(len, characters)) == 1623
    assert 0.05 < splits.train.images.float().mean() / 255 < 0.12
