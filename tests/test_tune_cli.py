"""`sparsemeta tune`."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from sparsemeta import backends
from sparsemeta.backends import tune_route, tune_store
from sparsemeta.cli import app

pytestmark = pytest.mark.extension


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    monkeypatch.setenv("SPARSEMETA_CACHE", str(tmp_path))
    tune_store.store.cache_clear()
    yield
    tune_store.store.cache_clear()


def tune(line: str = ""):
    return CliRunner().invoke(app, ["tune", *line.split()])


def test_measures_keeps_and_shows_every_pass_of_a_shape():
    result = tune("--custom 2x4x5x5:4:3 --sparsity 0.5,0.75 --threads 1")
    assert result.exit_code == 0, result.output
    for operation in tune_store.KERNELS:
        for density in ("50 %", "25 %"):
            fixed = "", operation, "2x4x5x5", "4x4x3x3", "1x1x1x1", density, "1 thread"
            row = (*fixed, ".* ms", ".* ms", "(cpu|contig|chann)")
            assert re.search(r" *│ *".join(row), result.output), result.output
    tune_store.store.cache_clear()  # another process
    assert tune().output == result.output


def test_a_model_is_measured_layer_by_layer(monkeypatch):
    monkeypatch.setattr(tune_route, "measure", lambda calls: {name: 1.0 for name in calls})
    result = tune("--model conv4 --image-size 16 --channels 1 --batch 2 --sparsity 0.8 --threads 1 --pattern 16x1")
    assert result.exit_code == 0, result.output
    assert len(tune_store.store().times) == 4 + 3 + 4 + 3  # no input gradient of the first layer; then the head
    assert "16x1x1x1" in result.output and "matmul" not in result.output


def test_clear_forgets():
    tune("--custom 2x4x5x5:4:3 --sparsity 0.5 --threads 1")
    assert "nothing has been measured" in tune("--clear").output and "nothing has been measured" in tune().output


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--shapes lenet", "expected each shape to be one of conv4, resnet12, custom"),
        ("--model lenet", "expected each model to be one of conv4, resnet12"),
        ("--custom 2x4", "expected a shape like 25x64x42x42:64:3:1:1"),
    ],
)
def test_bad_input_is_one_clear_error(line, message):
    error = tune(line).exception
    assert isinstance(error, ValueError) and message in str(error)


def test_without_kernels_there_is_nothing_to_choose(monkeypatch):
    monkeypatch.setattr(backends.cpu, "missing", lambda: ["no compiler was there"])
    error = tune("--shapes conv4").exception
    assert isinstance(error, ValueError) and "no compiler was there" in str(error)
