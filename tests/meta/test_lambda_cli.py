"""`sparsemeta lambda-search`."""

from __future__ import annotations

import itertools
import json

import pytest
from PIL import Image
from typer.testing import CliRunner

import sparsemeta as sm
from sparsemeta.cli import app
from sparsemeta.meta import CheckpointError

QUICK = ["--tasks", "2", "--rounds", "2", "--threads", "1"]


@pytest.fixture(params=["maml", "ticket", "meta_sgd"])
def run(request, tmp_path):
    """The checkpoint of a short training on a few glyphs, of images of 16 pixels."""
    chosen = {"maml": (), "ticket": ("--ticket", tmp_path / "ticket"), "meta_sgd": ("--set", "algorithm=meta_sgd")}
    model = sm.models.Conv4(5, 1, 4, (16, 16))
    sm.Ticket.magnitude(model, 0.6, exclude=("head",)).save(tmp_path / "ticket")
    small = ["--hidden", 4, "--queries", 3, "--inner-steps", 2, "--meta-batch", 1, "--steps", 1, "--first-order"]
    few = ["--set", "data.classes=[8,8,8]", "--set", "data.size=16", "--tasks", 2, "--threads", 1]
    result = call("train", tmp_path / "run", *few, *small, *chosen[request.param])
    assert result.exit_code == 0, result.exception
    return tmp_path / "run"


def call(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)])


def search(*options):
    return call("lambda-search", *options, *QUICK)


def test_searches_and_writes(run, tmp_path):
    out, picture = tmp_path / "out.json", tmp_path / "out.svg"
    patterns = ("--patterns", "00011,00001", "--delta", 100, "--json", out, "--plot", picture)
    result = search("--checkpoint", run, *patterns, "--results", tmp_path / "results")
    assert result.exit_code == 0, result.output
    assert "fastest within 100 points of 11111" in result.output and "inner_steps 2, tasks 2" in result.output
    content = json.loads(out.read_text())
    assert {r["pattern"] for r in content["records"]} == {"11111", "00011", "00001"}
    assert content["chosen"] in {"00011", "00001", "11111"} and picture.stat().st_size
    budget = search("--checkpoint", run, *patterns, "--reference", run, "--budget", 1e6, "--shots", 2)
    for told in ("shots 2", "best accuracy within 1e+06 ms", "reference"):
        assert told in budget.output


def test_images_of_another_shape_are_refused(run, tmp_path):
    for part, name in itertools.product(("train", "val", "test"), "abcdef"):
        (folder := tmp_path / "own" / part / name).mkdir(parents=True)
        for i in range(4):
            Image.new("L", (16, 16), color=ord(name) + i).save(folder / f"{i}.png")
    result = search("--checkpoint", run, "--dataset", "folder", "--data", tmp_path / "own")
    assert "expected images (1, 16, 16), as the checkpoint's; got (3, 16, 16)" in str(result.exception)


def test_bad_input_ends_before_the_search(tmp_path):
    assert isinstance(search("--checkpoint", tmp_path / "nowhere").exception, CheckpointError)
    assert "plot ending in" in str(search("--checkpoint", tmp_path / "run", "--plot", tmp_path / "x.txt").exception)
