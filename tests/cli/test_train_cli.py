"""`sparsemeta train`."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from sparsemeta import data
from sparsemeta.cli import app
from sparsemeta.meta.checkpoint import load_checkpoint
from sparsemeta.models import Conv4
from sparsemeta.ticket import Ticket, TicketError


@pytest.fixture(autouse=True)
def _few_glyphs(monkeypatch, _threads):
    few = data.glyphs(30)
    monkeypatch.setattr(data, "glyphs", lambda _: few)
    monkeypatch.setattr(data.ImageClasses, "split", lambda self, *_: data.Splits(self, self, self))


def train(*options):
    small = ["--hidden", "8", "--tasks", "5", "--threads", "1", "--meta-batch", "1"]
    return CliRunner().invoke(app, ["train", *map(str, options), *small])


def test_trains_and_judges(tmp_path):
    result = train(tmp_path / "run", "--steps", 2, "--shots", 2)
    assert result.exit_code == 0 and "accuracy on new tasks" in result.output and "5 tasks" in result.output
    state = load_checkpoint(tmp_path / "run")
    assert len(state["history"]) == 2 and state["config"]["shots"] == 2 and state["config"]["meta_batch"] == 1


def test_resumes_where_it_stopped(tmp_path):
    train(tmp_path / "whole", "--steps", 3)
    train(tmp_path / "parts", "--steps", 1)
    assert train(tmp_path / "parts", "--steps", 3, "--resume").exit_code == 0
    whole, parts = (load_checkpoint(tmp_path / name)["model"] for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_trains_only_the_weights_of_a_ticket(tmp_path):
    ticket = Ticket.magnitude(Conv4(5, 1, 8, 28), sparsity=0.8, exclude=("head",))
    ticket.save(tmp_path / "ticket")
    assert train(tmp_path / "run", "--steps", 1, "--ticket", tmp_path / "ticket").exit_code == 0
    model = load_checkpoint(tmp_path / "run")["model"]
    assert model["features.1.conv.values"].numel() == ticket["features.1.conv.weight"].nnz


def test_bad_input_ends_before_anything_is_written(tmp_path):
    Ticket.magnitude(Conv4(5, 1, 16, 28), sparsity=0.8).save(tmp_path / "ticket")
    assert isinstance(train(tmp_path / "run", "--ticket", tmp_path / "ticket").exception, TicketError)
    assert isinstance(train(tmp_path / "run", "--data", tmp_path).exception, FileNotFoundError)
    assert isinstance(train(tmp_path / "run", "--steps", 0).exception, ValueError)
    assert not (tmp_path / "run").exists()
