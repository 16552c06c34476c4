"""`sparsemeta lambda-search`."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

import sparsemeta as sm
from sparsemeta import data
from sparsemeta.cli import app
from sparsemeta.cli.lambda_search import restored
from sparsemeta.meta import CheckpointError, TrainConfig, train

QUICK = ["--tasks", "2", "--rounds", "2", "--threads", "1"]


@pytest.fixture
def splits(monkeypatch) -> data.Splits:
    few = data.glyphs(30)
    splits = data.Splits(few, few, few)
    monkeypatch.setattr(data, "glyphs", lambda _: few)
    monkeypatch.setattr(data.ImageClasses, "split", lambda self, *_: splits)
    return splits


@pytest.fixture(params=["dense", "ticket"])
def run(request, splits, tmp_path):
    """A trained model and its checkpoint."""
    model = sm.models.Conv4(5, 1, 4, splits.train.image_shape[1:])
    if request.param == "ticket":
        model = sm.sparsify(model, sm.Ticket.magnitude(model, 0.6, exclude=("head",)))
    config = TrainConfig(queries=3, inner_steps=2, meta_batch=1, steps=1, first_order=True)
    train(model, data.TaskSampler(splits.train, 5, 1, 3), config, tmp_path / "run", progress=False)
    return model, tmp_path / "run"


def search(*options):
    return CliRunner().invoke(app, ["lambda-search", *map(str, options), *QUICK])


def test_a_run_comes_back_as_it_was(run, splits):
    model, file = run
    again, config = restored(file, splits)
    x = torch.rand(5, *splits.train.image_shape)
    assert torch.equal(again(x), model(x)) and config.inner_steps == 2
    if isinstance(model.features[0].conv, sm.SparseConv2d):
        assert sm.ticket_of(again).patterns == sm.ticket_of(model).patterns


def test_searches_and_writes(run, tmp_path):
    out, picture = tmp_path / "out.json", tmp_path / "out.svg"
    patterns = ("--patterns", "00011,00001", "--delta", 100, "--json", out, "--plot", picture)
    result = search("--checkpoint", run[1], *patterns, "--results", tmp_path / "results")
    assert result.exit_code == 0, result.output
    assert "fastest within 100 points of 11111" in result.output and "inner_steps 2, tasks 2" in result.output
    content = json.loads(out.read_text())
    assert {r["pattern"] for r in content["records"]} == {"11111", "00011", "00001"}
    assert content["chosen"] in {"00011", "00001", "11111"} and picture.stat().st_size
    budget = search("--checkpoint", run[1], *patterns, "--reference", run[1], "--budget", 1e6, "--shots", 2)
    for told in ("shots 2", "best accuracy within 1e+06 ms", "reference"):
        assert told in budget.output


def test_bad_input_ends_before_the_search(splits, tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        restored(tmp_path / "nowhere", splits)
    assert "plot ending in" in str(search("--checkpoint", tmp_path / "run", "--plot", tmp_path / "x.txt").exception)
