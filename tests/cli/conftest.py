"""Runs that take seconds: few glyphs, a narrow network, one thread."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from sparsemeta import data
from sparsemeta.cli import app

SMALL = ["--set", "data.classes=[12,12,12]", "--set", "meta_batch=1", "--hidden", 8, "--tasks", 5, "--threads", 1]


@pytest.fixture(autouse=True)
def _restored(_threads):
    """`--threads` changes the process."""


@pytest.fixture
def call():
    def run(*arguments):
        return CliRunner().invoke(app, [*map(str, arguments)])

    return run


@pytest.fixture
def train(call):
    """`sparsemeta train` of a small network."""

    def run(*arguments):
        return call("train", *SMALL, *arguments)

    return run


@pytest.fixture
def checkpoint(train, tmp_path):
    """Of five-way one-shot on glyphs."""
    assert train(tmp_path / "run.safetensors", "--steps", 2).exit_code == 0
    return tmp_path / "run.safetensors"


@pytest.fixture
def folders(tmp_path):
    """Five characters nobody has trained on: two images of each to learn from, three to classify."""
    images = data.glyphs(5, per_class=5, seed=7)
    for i, (pixels, label) in enumerate(zip(images.images, images.labels.tolist(), strict=True)):
        folder = tmp_path / ("support" if i % 5 < 2 else "query") / images.names[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[0].numpy()).save(folder / f"{i}.png")
    return tmp_path / "support", tmp_path / "query"


@pytest.fixture
def as_json():
    def parse(result):
        assert result.exit_code == 0, result.exception
        return json.loads(result.output)

    return parse
