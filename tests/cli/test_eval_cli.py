"""`sparsemeta eval`: everything comes from the checkpoint."""

from __future__ import annotations

import pytest
import torch

from sparsemeta import data
from sparsemeta.data import TaskSampler
from sparsemeta.meta import MAML, CheckpointError, TrainConfig, evaluate, train
from sparsemeta.meta.trained import load_trained
from sparsemeta.models import Conv4
from sparsemeta.nn import ticket_of
from sparsemeta.ticket import Ticket


def test_it_prints_accuracy_interval_seed_and_mode(call, checkpoint):
    result = call("eval", "--checkpoint", checkpoint, "--tasks", 6, "--seed", 3, "--threads", 1)
    assert result.exit_code == 0, result.exception
    assert result.output.startswith("glyphs test, 5-way 1-shot, maml: ")
    assert "6 tasks, 95 % interval, bn_mode=transductive), seed 3" in result.output


def test_the_figures_are_those_of_evaluate(call, checkpoint, as_json):
    facts = as_json(call("eval", "--checkpoint", checkpoint, "--tasks", 6, "--split", "val", "--threads", 1, "--json"))
    trained = load_trained(checkpoint)
    images = data.glyphs(36).split(12, 12, 12).val
    expected = evaluate(trained.model, TaskSampler(images, 5, 1, 5, seed=0), trained.config, 6)
    assert (facts["accuracy"], facts["interval"]) == (expected.accuracy, expected.interval) and facts["split"] == "val"


def test_inner_steps_and_pattern_are_others_than_the_runs(call, checkpoint, as_json):
    def judged(*options):
        return as_json(call("eval", "--checkpoint", checkpoint, "--tasks", 4, "--threads", 1, "--json", *options))

    trained, full = load_trained(checkpoint), judged("--inner-steps", 3, "--pattern", "11111")
    assert full["pattern"] == "11111" and full["config"]["eval_inner_steps"] == 3
    assert full["loss"] == pytest.approx(judged("--inner-steps", 3)["loss"])
    assert len({full["loss"], judged()["loss"], judged("--inner-steps", 3, "--pattern", "00001")["loss"]}) == 3
    assert trained.config.eval_inner_steps is None


def test_a_sparse_model_comes_back_with_its_ticket(train, tmp_path):
    ticket = Ticket.magnitude(Conv4(5, 1, 8, 28), sparsity=0.8, exclude=("head",))
    ticket.save(tmp_path / "ticket")
    train(tmp_path / "run", "--steps", 1, "--ticket", tmp_path / "ticket")
    trained = load_trained(tmp_path / "run")
    assert dict(ticket_of(trained.model)) == dict(ticket) and isinstance(trained.learner, MAML)
    assert trained.model(torch.rand(2, 1, 28, 28)).shape == (2, 5)


def test_what_is_no_such_checkpoint_is_named(call, checkpoint, tmp_path):
    config = TrainConfig(queries=2, meta_batch=1, steps=1)
    train(Conv4(5, 1, 8, 28), TaskSampler(data.glyphs(6), queries=2), config, tmp_path / "bare", progress=False)
    with pytest.raises(CheckpointError, match="says how its model is built"):
        load_trained(tmp_path / "bare")
    assert isinstance(call("eval", "--checkpoint", tmp_path / "none").exception, CheckpointError)
    assert "expected a split; got 'tset'. The nearest is 'test'" in str(
        call("eval", "--checkpoint", checkpoint, "--split", "tset").exception
    )
