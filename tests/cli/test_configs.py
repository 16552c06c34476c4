"""The committed configurations are whole, and one of them runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparsemeta.data.sources import SOURCES
from sparsemeta.meta.recipe import Recipe, read_tables

FOLDER = Path(__file__).parents[2] / "configs"
CONFIGS = sorted(FOLDER.glob("*.toml"))


def test_there_are_full_and_small_ones():
    names = {file.stem for file in CONFIGS}
    full = {f"{name}-5w{k}s" for name in ("cifar-fs", "mini-imagenet") for k in (1, 5)}
    assert full | {"omniglot-5w1s", "omniglot-20w1s"} <= names
    assert {name.removeprefix("small-") for name in names if name.startswith("small-")} >= {"glyphs", "omniglot-5w1s"}


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_it_is_understood_and_says_what_its_name_says(file):
    recipe, ways_shots = Recipe.make(read_tables(file)), file.stem.rpartition("-")[2]
    assert recipe.data.name in SOURCES and recipe.data.name in file.stem and recipe.test.tasks == 600
    if ways_shots[0].isdigit():
        assert ways_shots == f"{recipe.train.ways}w{recipe.train.shots}s"
    assert f"--config configs/{file.name}" in file.read_text()


def test_the_smallest_one_runs(train, tmp_path):
    small = ["--set", "steps=1", "--set", "validate_every=1", "--set", "validate_tasks=2", "--set", "test.queries=2"]
    result = train(tmp_path / "run", "--config", FOLDER / "small-glyphs.toml", *small)
    assert result.exit_code == 0 and "accuracy on new tasks" in result.output, result.exception
