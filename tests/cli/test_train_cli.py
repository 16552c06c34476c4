"""`sparsemeta train`."""

from __future__ import annotations

import sys

import pytest
import torch

from sparsemeta import cli, meta
from sparsemeta.backends.tune_store import store
from sparsemeta.meta.checkpoint import load_checkpoint
from sparsemeta.meta.log import read_lines
from sparsemeta.meta.trained import load_trained
from sparsemeta.models import Conv4
from sparsemeta.ticket import Ticket, TicketError


def test_trains_judges_and_logs(train, tmp_path):
    result = train(tmp_path / "run", "--steps", 2, "--shots", 2)
    assert result.exit_code == 0 and "accuracy on new tasks" in result.output
    assert "5 tasks, 95 % interval, bn_mode=transductive), seed 0" in result.output
    state = load_checkpoint(tmp_path / "run")
    assert len(state["history"]) == 2 and state["config"]["shots"] == 2 and state["config"]["meta_batch"] == 1
    assert [line["step"] for line in read_lines(tmp_path / "run.jsonl")] == [1, 2]


def test_resumes_where_it_stopped(train, tmp_path):
    train(tmp_path / "whole", "--steps", 3)
    train(tmp_path / "parts", "--steps", 1)
    assert train(tmp_path / "parts", "--steps", 3, "--resume").exit_code == 0
    whole, parts = (load_checkpoint(tmp_path / name)["model"] for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_never_writes_over_a_run(train, tmp_path):
    train(tmp_path / "run", "--steps", 1)
    before = (tmp_path / "run").read_bytes()
    result = train(tmp_path / "run", "--steps", 2)
    assert result.exit_code and "go on with it by --resume, or give another name" in str(result.exception)
    assert (tmp_path / "run").read_bytes() == before


def test_trains_only_the_weights_of_a_ticket(train, tmp_path):
    ticket = Ticket.magnitude(Conv4(5, 1, 8, 28), sparsity=0.8, exclude=("head",))
    ticket.save(tmp_path / "ticket")
    assert train(tmp_path / "run", "--steps", 1, "--ticket", tmp_path / "ticket").exit_code == 0
    model = load_checkpoint(tmp_path / "run")["model"]
    assert model["features.1.conv.values"].numel() == ticket["features.1.conv.weight"].nnz


def test_a_ticket_starts_from_the_weights_of_a_dense_run(train, tmp_path):
    assert train(tmp_path / "dense", "--steps", 2).exit_code == 0
    dense = load_trained(tmp_path / "dense").model
    Ticket.magnitude(dense, sparsity=0.8, exclude=("head",)).save(tmp_path / "ticket")
    begin = "--ticket", tmp_path / "ticket", "--start", tmp_path / "dense"
    assert train(tmp_path / "run", "--steps", 1, "--set", "meta_lr=1e-30", *begin).exit_code == 0
    sparse = load_trained(tmp_path / "run").model
    for name, pattern in Ticket.load(tmp_path / "ticket").items():
        module, _, _ = name.rpartition(".")
        kept = dense.get_parameter(name)[pattern.mask()]
        assert torch.equal(sparse.get_submodule(module).to_dense().weight[pattern.mask()], kept)
    other = train(tmp_path / "other", "--start", tmp_path / "run")
    assert "expected a checkpoint of a dense conv4" in str(other.exception) and not (tmp_path / "other").exists()


@pytest.mark.extension
def test_measures_the_kernels_for_a_ticket(train, tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSEMETA_CACHE", str(tmp_path / "cache"))
    store.cache_clear()
    Ticket.magnitude(Conv4(5, 1, 8, 28), sparsity=0.8, exclude=("head",)).save(tmp_path / "ticket")
    options = "--steps", 1, "--ticket", tmp_path / "ticket", "--set", "engine=autograd"
    result = train(tmp_path / "run", *options, "--tune")
    assert result.exit_code == 0, result.exception
    assert f"measured {len(store().times)} passes" in result.output and len(store().times) >= 4 * 3 - 1
    store.cache_clear()


def test_a_configuration_is_overridden_by_flags_and_names_the_checkpoint(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(
        '[data]\nname = "glyphs"\nclasses = [12, 12, 12]\nnormalise = true\n[model]\nhidden = 8\n'
        "[train]\nmeta_batch = 1\nsteps = 9\nqueries = 4\nvalidate_every = 1\nvalidate_tasks = 3\n[test]\ntasks = 5\n"
    )
    result = call("train", "--config", "small.toml", "--steps", 2, "--set", "schedule=cosine", "--set", "clip_norm=10")
    assert result.exit_code == 0, result.exception
    state = load_checkpoint("runs/small.safetensors")
    assert (state["config"]["steps"], state["config"]["schedule"], state["config"]["clip_norm"]) == (2, "cosine", 10)
    assert state["config"]["queries"] == 4 and len(state["validations"]) == 2 and len(state["about"]["normalise"]) == 2
    assert "checkpoint: runs/small.best.safetensors" in result.output


def test_bad_input_ends_before_anything_is_written(train, call, tmp_path):
    Ticket.magnitude(Conv4(5, 1, 16, 28), sparsity=0.8).save(tmp_path / "ticket")
    assert isinstance(train(tmp_path / "run", "--ticket", tmp_path / "ticket").exception, TicketError)
    missing = call("train", tmp_path / "run", "--data", tmp_path).exception
    assert isinstance(missing, FileNotFoundError) and "images_background.zip" in str(missing)
    assert isinstance(train(tmp_path / "run", "--steps", 0).exception, ValueError)
    assert "expected OUT" in str(train().exception)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("assignment", "message"),
    [("inner_step=2", r"a key of \[train\]; got 'inner_step'. The nearest is 'inner_steps'"),
     ("data.clases=[1,1,1]", "an option of the data set glyphs; got 'clases'. The nearest is 'classes'"),
     ("model.hiden=8", "an argument of the model conv4; got 'hiden'. The nearest is 'hidden'"),
     ("model.name=resnet", "a model; got 'resnet'. The nearest is 'resnet12'"),
     ("tests.tasks=3", "a table of a configuration; got 'tests'. The nearest is 'test'"),
     ("steps", "expected key=value"), ("steps=many", "expected steps to be an integer of at least 1; got 'many'")],
)  # fmt: skip
def test_an_unknown_key_is_named_with_the_nearest(train, tmp_path, assignment, message):
    error = train(tmp_path / "run", "--set", assignment).exception
    assert isinstance(error, ValueError)
    with pytest.raises(ValueError, match=message):
        raise error


def test_a_file_that_is_no_toml_is_named(call, tmp_path):
    (tmp_path / "x.toml").write_text("[train\n")
    assert "expected a TOML file" in str(call("train", "--config", tmp_path / "x.toml").exception)


@pytest.mark.parametrize("kind", [meta.DivergenceError, meta.RankError])
def test_a_run_that_stops_says_so_in_one_line(monkeypatch, capsys, tmp_path, kind):
    def stop(*_, **__):
        raise kind("meta-step 4: why, and what to do")

    monkeypatch.setattr(meta, "train", stop)
    monkeypatch.setattr(sys, "argv", ["sparsemeta", "train", str(tmp_path / "run"), "--set", "data.classes=[9,9,9]"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == cli.STOPPED == 3
    assert capsys.readouterr().err == "sparsemeta: meta-step 4: why, and what to do\n"
