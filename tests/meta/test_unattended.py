"""Training that is left alone: schedules, validation, early stop, logs, and resuming with all of them to the bit."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math

import pytest
import torch

from sparsemeta.meta import TrainConfig, ValidationRecord, best_path, evaluate, make_learner, make_optimizer, train
from sparsemeta.meta.checkpoint import CheckpointError, load_checkpoint
from sparsemeta.meta.log import read_lines
from sparsemeta.meta.records import best, out_of_patience


class Interrupted(Exception):
    pass


def stop_after(step: int):
    def stop(record):
        if record.step == step:
            raise Interrupted

    return stop


@pytest.fixture
def busy(settings) -> TrainConfig:
    """Everything that has a state: schedule, momentum, validation."""
    return TrainConfig(
        **settings, steps=7, checkpoint_every=3, schedule="cosine", optimizer="sgd", meta_lr=0.05, seed=3,
        validate_every=2, validate_tasks=6,
    )  # fmt: skip


def test_a_resumed_run_equals_an_uninterrupted_one_in_validations_log_and_best(net, sampler, busy, tmp_path):
    def run(name, model, **options):
        file = tmp_path / name / "run.safetensors"
        options |= {"validation": sampler(8), "log": tmp_path / name / "log.jsonl", "progress": False}
        return train(model, sampler(), busy, file, **options)

    whole, parts = net(dropout=0.3), net(dropout=0.3)
    expected = run("whole", whole)
    with pytest.raises(Interrupted):
        run("parts", net(dropout=0.3), on_step=stop_after(5))
    torch.rand(3)
    result = run("parts", parts, resume=True)

    assert [dataclasses.replace(r, seconds=0) for r in result.history] == [
        dataclasses.replace(r, seconds=0) for r in expected.history
    ]
    assert result.validations == expected.validations and [v.step for v in result.validations] == [2, 4, 6]
    assert result.best == expected.best == best(result.validations)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), parts.state_dict().values(), strict=True))
    for file in ("run.safetensors", "run.best.safetensors"):
        models = [load_checkpoint(tmp_path / name / file)["model"] for name in ("whole", "parts")]
        assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    logs = [read_lines(tmp_path / name / "log.jsonl") for name in ("whole", "parts")]
    for line, clock in itertools.product([*logs[0], *logs[1]], ("seconds", "processor_seconds")):
        line.pop(clock, None)
    assert logs[0] == logs[1] and len(logs[0]) == 7 + 3


@pytest.mark.parametrize("algorithm", ["meta_sgd", "maml++", "alfa", "anil", "reptile"])
def test_what_an_algorithm_learns_beside_the_model_is_resumed_too(net, sampler, settings, tmp_path, algorithm):
    config = TrainConfig(**settings, steps=4, checkpoint_every=2, algorithm=algorithm, meta_lr=0.02)
    expected = train(net(), sampler(), config, tmp_path / "whole", progress=False)
    with pytest.raises(Interrupted):
        train(net(), sampler(), config, tmp_path / "parts", progress=False, on_step=stop_after(3))
    result = train(net(), sampler(), config, tmp_path / "parts", resume=True, progress=False)
    assert [r.loss for r in result.history] == [r.loss for r in expected.history]
    learned = [load_checkpoint(tmp_path / name)["learner"] for name in ("whole", "parts")]
    assert learned[0].keys() == learned[1].keys() and bool(learned[0]) == (algorithm in ("meta_sgd", "maml++", "alfa"))
    assert all(torch.equal(learned[0][name], learned[1][name]) for name in learned[0])


def test_log_lines_hold_the_figures_and_a_torn_line_is_dropped(net, sampler, settings, tmp_path):
    config, log = TrainConfig(**settings, steps=2), tmp_path / "logs" / "log.jsonl"
    result = train(net(), sampler(), config, tmp_path / "c", log=log, progress=False)
    first = json.loads(log.read_text().splitlines()[0])
    assert first == {"kind": "train", "meta_lr": 1e-3} | dataclasses.asdict(result.history[0])

    log.write_text(log.read_text() + '{"kind": "train", "st')
    longer = dataclasses.replace(config, steps=3)
    train(net(), sampler(), longer, tmp_path / "c", resume=True, log=log, progress=False)
    assert [line["step"] for line in read_lines(log)] == [1, 2, 3]
    train(net(), sampler(), config, log=log, progress=False)  # a new run begins a new log
    assert [line["step"] for line in read_lines(log)] == [1, 2]


def test_validation_judges_the_same_tasks_and_leaves_training_alone(net, sampler, settings):
    judged = TrainConfig(**settings, steps=4, validate_every=4, validate_tasks=5)
    model, plain, tasks = net(dropout=0.3), net(dropout=0.3), sampler(8)
    result = train(model, sampler(), judged, validation=tasks, progress=False)
    train(plain, sampler(), TrainConfig(**settings, steps=4), progress=False)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))
    score = evaluate(model, tasks, judged, 5)
    assert result.validations == [ValidationRecord(4, score.accuracy, score.interval, score.loss)]


def test_best_is_the_first_of_the_highest_and_patience_counts_from_it():
    records = [ValidationRecord(step, accuracy, 1.0, 0.5) for step, accuracy in enumerate([50, 70, 70, 60], 1)]
    assert best(records).step == 2 and best([]) is None
    assert not out_of_patience(records, 3) and out_of_patience(records, 2) and not out_of_patience(records, None)
    assert not out_of_patience(records[:3], 2) and not out_of_patience([], 1)


def test_early_stop_ends_the_run_and_a_resumed_one_stays_ended(net, sampler, settings, tmp_path):
    config = TrainConfig(**settings, steps=50, meta_lr=1e-12, validate_every=1, validate_tasks=3, patience=2)
    result = train(net(), sampler(), config, tmp_path / "c", validation=sampler(8), progress=False)
    assert len(result.history) == 3 and result.best.step == 1  # nothing moves, so nothing gets better
    assert len(load_checkpoint(best_path(tmp_path / "c"))["history"]) == 1
    again = train(net(), sampler(), config, tmp_path / "c", resume=True, validation=sampler(8), progress=False)
    assert again.history == result.history
    patient = dataclasses.replace(config, patience=4)
    longer = train(net(), sampler(), patient, tmp_path / "c", resume=True, validation=sampler(8), progress=False)
    assert len(longer.history) == 5


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, [1, 1, 1, 1]), ({"schedule": "step", "decay": 0.1, "decay_every": 2}, [1, 1, 0.1, 0.1]),
     ({"schedule": "cosine"}, [(1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)])],
)  # fmt: skip
def test_schedule(net, sampler, settings, tmp_path, options, expected):
    config = TrainConfig(**settings, steps=4, meta_lr=0.01, **options)
    train(net(), sampler(), config, log=tmp_path / "log", progress=False)
    assert [line["meta_lr"] for line in read_lines(tmp_path / "log")] == pytest.approx([0.01 * f for f in expected])


def test_the_schedule_reaches_the_weights(net, sampler, settings):
    config = TrainConfig(**settings, steps=2, optimizer="sgd", schedule="step", decay=1e-9, decay_every=1)
    steps = []
    model = net()
    train(model, sampler(), config, progress=False, on_step=lambda _: steps.append(model[0].weight.detach().clone()))
    torch.testing.assert_close(steps[0], steps[1], rtol=0, atol=1e-9)
    assert (steps[0] - net()[0].weight).abs().max() > 1e-6


def test_a_cosine_run_cannot_be_lengthened(net, sampler, settings, tmp_path):
    config = TrainConfig(**settings, steps=1, schedule="cosine")
    train(net(), sampler(), config, tmp_path / "c", progress=False)
    with pytest.raises(CheckpointError, match="steps was 1 and is 2"):
        train(net(), sampler(), dataclasses.replace(config, steps=2), tmp_path / "c", resume=True, progress=False)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_optimizers_by_name(net, settings, name):
    config = TrainConfig(**settings, optimizer=name, meta_lr=0.02)
    optimizer = make_optimizer(make_learner(net(), config), config)
    assert type(optimizer).__name__.lower() == name and optimizer.param_groups[0]["lr"] == 0.02


def test_validation_without_tasks_is_named(net, sampler, settings):
    with pytest.raises(ValueError, match="expected validation tasks .* Pass validation=sampler"):
        train(net(), sampler(), TrainConfig(**settings, validate_every=1), progress=False)


def test_tensorboard_is_written_or_named(net, sampler, settings, tmp_path):
    config = TrainConfig(**settings, steps=1)
    try:
        import torch.utils.tensorboard  # noqa: F401  which of the two halves can be tested here
    except ImportError:
        with pytest.raises(ValueError, match=r"pip install .sparsemeta\[tensorboard\]"):
            train(net(), sampler(), config, tensorboard=tmp_path / "board", progress=False)
    else:
        train(net(), sampler(), config, tensorboard=tmp_path / "board", progress=False)
        assert list((tmp_path / "board").glob("events.*"))
