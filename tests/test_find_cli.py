"""`sparsemeta find`."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from sparsemeta.cli import app
from sparsemeta.meta.checkpoint import load_checkpoint
from sparsemeta.models import Conv4
from sparsemeta.ticket import Ticket

FEW = ["--set", "data.classes=[10,10,10]", "--hidden", "8", "--threads", "1", "--meta-batch", "1"]


@pytest.fixture(autouse=True)
def _restored(_threads):
    """`--threads` changes the process."""


def find(out, *options):
    return call("find", "--out", out, *FEW, "--steps", 4, "--first-order", *options)


def call(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_imp_and_its_files(tmp_path):
    out = tmp_path / "new" / "ticket.safetensors"
    result = find(out, "--sparsity", 0.36, "--block", "4x1", "--exclude", "head", "--exclude", "features.0")
    assert result.exit_code == 0, result.output
    assert "35.88 %" in result.output and "FLOPs of training" in result.output
    ticket = Ticket.load(out)
    assert list(ticket) == [f"features.{i}.conv.weight" for i in (1, 2, 3)]
    assert ticket["features.1.conv.weight"].block == (4, 1, 1, 1)
    says = ticket.provenance
    assert (says["method"], says["model"], says["data"], says["run"]["steps"]) == ("imp", "conv4", "glyphs", 4)
    assert len(json.loads(out.with_suffix(".json").read_text())["trace"]) == 2
    assert len(list(out.parent.iterdir())) == 5


def test_goes_on_in_its_folder(tmp_path):
    arguments = ["--sparsity", 0.36, "--state", tmp_path / "state"]
    assert find(tmp_path / "a", *arguments).exit_code == 0
    state = json.loads((tmp_path / "state" / "state.json").read_text())
    state["records"].pop()
    (tmp_path / "state" / "state.json").write_text(json.dumps(state))
    assert "resume it" in str(find(tmp_path / "b", *arguments).exception)
    assert find(tmp_path / "b", *arguments, "--resume").exit_code == 0
    assert Ticket.load(tmp_path / "a") == Ticket.load(tmp_path / "b")


@pytest.mark.parametrize("options", [
    ("snip",), ("synflow", "--option", "rounds=3"), ("random", "--distribution", "erk"), ("obs", "--every-unit"),
    ("grasp", "--block", "kernels"), ("magnitude", "--schedule", "gradual", "--option", "rounds=2"), ("taylor",),
])  # fmt: skip
def test_methods(tmp_path, options):
    result = find(tmp_path / "ticket", "--method", *options)
    assert result.exit_code == 0, result.exception
    assert 0.7 < Ticket.load(tmp_path / "ticket").sparsity <= 0.801


def test_scores_the_weights_of_a_checkpoint(tmp_path):
    assert call("train", tmp_path / "run", *FEW, "--tasks", 2, "--steps", 1).exit_code == 0
    assert find(tmp_path / "ticket", "--method", "magnitude", "--checkpoint", tmp_path / "run").exit_code == 0
    model = Conv4(5, 1, 8, 28)
    model.load_state_dict(load_checkpoint(tmp_path / "run")["model"])
    ticket = Ticket.load(tmp_path / "ticket")
    assert ticket == Ticket.magnitude(model, 0.8, exclude="head")
    assert ticket.provenance["cost"]["flops"] == 0
    other = find(tmp_path / "other", "--method", "magnitude", "--checkpoint", tmp_path / "run", "--hidden", 16)
    assert "expected a checkpoint of a dense conv4" in str(other.exception)


def test_anp_for_cavia(tmp_path):
    """Its rounds; and its score of the weights of a checkpoint."""
    cavia = "--model", "film_conv4", "--set", "model.context=6", "--set", "algorithm=cavia"
    anp = *cavia, "--method", "anp", "--option", "fisher=true"
    result = find(tmp_path / "rounds", *anp, "--sparsity", 0.2, "--option", "tasks=2", "--option", "retrain=2")
    assert result.exit_code == 0, result.exception
    ticket = Ticket.load(tmp_path / "rounds")
    assert "features.2.film.affine.weight" in ticket and ticket.provenance["model"] == "film_conv4"
    assert all(p.numel - p.nnz == 2 * int(0.1 * p.numel) for p in ticket.values())
    assert call("train", tmp_path / "run", *FEW, *cavia, "--tasks", 2, "--steps", 1).exit_code == 0
    score = "--checkpoint", tmp_path / "run", "--distribution", "layer", "--sparsity", 0.5
    assert find(tmp_path / "score", *anp, *score).exit_code == 0
    assert list(Ticket.load(tmp_path / "score")) == list(ticket)


def test_a_configuration_is_that_of_train(tmp_path):
    (tmp_path / "a.toml").write_text(CONFIG)
    options = "--config", tmp_path / "a.toml", "--method", "snip", "--score-tasks", 2
    result = call("find", "--out", tmp_path / "ticket", "--threads", 1, *options)
    assert result.exit_code == 0, result.exception
    says = Ticket.load(tmp_path / "ticket").provenance
    assert says["model"] == "resnet12" and says["arguments"]["image_size"] == [16, 16]


CONFIG = """
[data]
name = "glyphs"
classes = [10, 10, 10]
size = 16
[model]
name = "resnet12"
widths = [4, 4, 4, 4]
[train]
validate_every = 1
queries = 2
"""

BAD = {
    "method": (("--method", "magic"), "got 'magic'"),
    "model": (("--model", "vgg"), "expected a model; got 'vgg'"),
    "ticket": (("--set", "model.ticket=some"), "a dense model to find a ticket in; got the ticket some"),
    "block": (("--block", "3x3"), "expected a block"),
    "sparsity": (("--sparsity", "80"), "got 80"),
    "option": (("--option", "rounds"), "expected an option as NAME=VALUE, got 'rounds'"),
}


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD)
def test_bad_input(tmp_path, options, message):
    result = find(tmp_path / "ticket", *options)
    assert isinstance(result.exception, ValueError) and message in str(result.exception)
    assert not (tmp_path / "ticket").exists()
