"""meta_step and train: what they compute, resuming to the bit, and stopping in time."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from sparsemeta.meta import DivergenceError, TrainConfig, evaluate, make_learner, make_optimizer, meta_step, train


def test_meta_step_is_one_step_on_the_mean_query_loss(net, sampler, settings):
    config = TrainConfig(**settings)
    model, tasks = net().double(), sampler(dtype=torch.float64).sample(3)
    learner = make_learner(model, config)
    losses, hits = [], []
    for i in range(3):
        clone = learner.clone()
        for _ in range(2):
            clone.adapt(F.cross_entropy(clone(tasks.support_x[i]), tasks.support_y[i]))
        logits = clone(tasks.query_x[i])
        losses.append(F.cross_entropy(logits, tasks.query_y[i]))
        hits += (logits.argmax(1) == tasks.query_y[i]).tolist()
    mean = sum(losses) / 3
    expected = torch.autograd.grad(mean, list(model.parameters()))
    moved = [p - 0.1 * g for p, g in zip(model.parameters(), expected, strict=True)]

    optimizer = torch.optim.SGD(learner.parameters(), lr=0.1)
    loss, accuracy = meta_step(learner, tasks, optimizer, config)
    assert loss == pytest.approx(mean.item(), rel=1e-6) and accuracy == pytest.approx(100 * sum(hits) / len(hits))
    for got, wanted in zip(model.parameters(), moved, strict=True):
        torch.testing.assert_close(got, wanted.detach(), rtol=1e-10, atol=1e-10)


def test_clip_norm_limits_the_meta_gradient(net, sampler, settings):
    config = TrainConfig(**settings, clip_norm=1e-3)
    model = net()
    start = [p.detach().clone() for p in model.parameters()]
    meta_step(make_learner(model, config), sampler().sample(2), torch.optim.SGD(model.parameters(), lr=1.0), config)
    norm = sum((p - old).square().sum() for p, old in zip(model.parameters(), start, strict=True)).sqrt()
    assert norm.item() == pytest.approx(1e-3, rel=1e-2)


def test_training_learns_and_records(net, sampler, settings):
    model, config, seen = net(), TrainConfig(**settings, steps=30, meta_lr=1e-2), []
    before = evaluate(model, sampler(1, noise=2.0), config, tasks=50)
    result = train(model, sampler(noise=2.0), config, progress=False, on_step=seen.append)
    after = evaluate(model, sampler(1, noise=2.0), config, tasks=50)
    assert after.accuracy > before.accuracy + 5 and after.loss < before.loss
    assert seen == result.history and [r.step for r in seen] == list(range(1, 31))
    assert result.seconds_per_step > 0 and result.checkpoint is None


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(net, sampler, settings, tmp_path, memory_format):
    config = TrainConfig(**settings, steps=7, checkpoint_every=2, memory_format=memory_format, seed=3)
    whole = net(track_running_stats=True, dropout=0.3)
    expected = train(whole, sampler(), config, progress=False)

    def interrupt(record):
        if record.step == 5:  # one step after a checkpoint, which then is lost
            raise Interrupted

    file = tmp_path / "runs" / "c.safetensors"
    with pytest.raises(Interrupted):
        train(net(track_running_stats=True, dropout=0.3), sampler(), config, file, progress=False, on_step=interrupt)
    torch.rand(3)  # what others draw meanwhile changes nothing
    model, tasks = net(track_running_stats=True, dropout=0.3), sampler(seed=9)
    result = train(model, tasks, config, file, resume=True, progress=False)

    numbers = [[(r.step, r.loss, r.accuracy) for r in run.history] for run in (expected, result)]
    assert numbers[0] == numbers[1] and len(numbers[0]) == 7
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), model.state_dict().values(), strict=True))
    assert torch.equal(tasks.sample(1).support_x, continued(sampler(), 14))
    assert train(model, tasks, config, file, resume=True, progress=False).history == result.history


def continued(sampler, skipped: int) -> torch.Tensor:
    sampler.sample(skipped)
    return sampler.sample(1).support_x


def test_a_finished_run_can_be_carried_on(net, sampler, settings, tmp_path):
    config = TrainConfig(**settings, steps=2)
    train(net(), sampler(), config, tmp_path / "c", progress=False)
    longer = dataclasses.replace(config, steps=5)
    carried = train(net(), sampler(), longer, tmp_path / "c", resume=True, progress=False)
    whole = train(net(), sampler(), longer, progress=False)
    assert [r.loss for r in carried.history] == [r.loss for r in whole.history]


def test_the_seed_fixes_the_run_and_the_mode_is_training(net, sampler, settings):
    def losses(seed: int) -> list[float]:
        model = net(dropout=0.5).eval()
        torch.manual_seed(torch.seed())
        config = TrainConfig(**settings, steps=2, seed=seed)
        return [r.loss for r in train(model, sampler(), config, progress=False).history]

    assert losses(0) == losses(0) != losses(1)


def test_training_leaves_the_global_random_state(net, sampler, settings):
    model, state = net(dropout=0.5), torch.get_rng_state()
    train(model, sampler(), TrainConfig(**settings, steps=1), progress=False)
    assert torch.equal(torch.get_rng_state(), state)


class Poisoned:
    """A sampler whose tasks turn to NaN after a while."""

    def __init__(self, sampler, good: int):
        self.sampler, self.good = sampler, good

    def sample(self, n):
        tasks, self.good = self.sampler.sample(n), self.good - 1
        if self.good < 0:
            tasks.query_x[0, 0] = float("nan")
        return tasks

    def __getattr__(self, name):
        return getattr(self.sampler, name)


def test_nan_stops_with_the_last_good_checkpoint_kept(net, sampler, settings, tmp_path):
    model, config = net(), TrainConfig(**settings, steps=9, checkpoint_every=2)
    message = r"meta-step 4: expected a finite .* got nan.*Lower meta_lr .*c\.safetensors"
    with pytest.raises(DivergenceError, match=message):
        train(model, Poisoned(sampler(), good=3), config, tmp_path / "c.safetensors", progress=False)
    assert all(p.isfinite().all() for p in model.parameters())
    good = train(net(), sampler(), dataclasses.replace(config, steps=3), progress=False)
    resumed = train(
        net(), sampler(), dataclasses.replace(config, steps=3), tmp_path / "c.safetensors", resume=True, progress=False
    )
    assert [r.loss for r in resumed.history] == [r.loss for r in good.history]


def overflow(parameter: torch.Tensor) -> None:
    parameter.grad.fill_(float("inf"))


def test_a_gradient_that_is_not_finite_stops_before_the_step(net, sampler, settings):
    model, config = net(), TrainConfig(**settings)
    start = [p.detach().clone() for p in model.parameters()]
    learner = make_learner(model, config)
    model[0].weight.register_post_accumulate_grad_hook(overflow)
    with pytest.raises(DivergenceError, match="norm inf"):
        meta_step(learner, sampler().sample(2), make_optimizer(learner, config), config)
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), start, strict=True))


def test_an_infinite_loss_stops_though_its_gradient_is_finite(net, sampler, settings):
    model, config = net(), TrainConfig(**settings, first_order=True)
    model[5].bias.data[0] = -float("inf")  # class 0 is impossible
    learner = make_learner(model, config)
    with pytest.raises(DivergenceError, match=r"got inf and norm \d"):
        meta_step(learner, sampler().sample(2), make_optimizer(learner, config), config)


def test_progress_bar_shows_the_numbers(net, sampler, settings, capsys):
    train(net(), sampler(), TrainConfig(**settings, steps=2))
    shown = capsys.readouterr().out
    assert "2/2" in shown and "steps/s" in shown and "accuracy" in shown


def test_misuse_is_named(net, sampler, settings):
    config = TrainConfig(**settings)
    with pytest.raises(ValueError, match="expected checkpoint to name a file"):
        train(net(), sampler(), config, resume=True)
    with pytest.raises(ValueError, match="trainable parameters; got none"):
        train(net().requires_grad_(False), sampler(), config)


@pytest.mark.parametrize(
    "wrong", [{"ways": 0}, {"inner_steps": 1.5}, {"meta_lr": 0}, {"inner_lr": float("nan")}, {"clip_norm": -1},
              {"bn_mode": "eval"}, {"memory_format": "nhwc"}, {"eval_inner_steps": 0}],
)
def test_config_out_of_range(wrong):
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"expected {name} to be .*; got {value!r}"):
        TrainConfig(**wrong)
