"""Training runs: the same numbers whole or in parts, and cost that is counted by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import sparsemeta as sm
from sparsemeta.meta import DivergenceError, TrainConfig
from sparsemeta.pruning import MetaRun, Snapshot, SupervisedRun, meta_passes, sample_flops

CONFIG = TrainConfig(ways=3, queries=2, inner_lr=0.1, meta_batch=2, steps=6, checkpoint_every=2)


def make_model() -> nn.Module:
    torch.manual_seed(3)
    return sm.models.Conv4(ways=3, in_channels=1, hidden=4, image_size=16)


def meta_run(config=CONFIG):
    return MetaRun(sm.data.TaskSampler(sm.data.glyphs(classes=6, size=16), ways=3, queries=2), config)


def supervised_run(**more):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (20, 1, 16, 16), dtype=torch.uint8, generator=generator)
    chosen = {"steps": 6, "batch": 8, "lr": 0.05, "milestones": (4,), "checkpoint_every": 2, **more}
    return SupervisedRun(images, torch.arange(20) % 3, **chosen)


RUNS = {"meta": meta_run, "supervised": supervised_run}


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("make_run", RUNS.values(), ids=RUNS)
def test_from_a_snapshot_on_as_if_never_stopped(make_run):
    whole, parts, run = make_model(), make_model(), make_run()
    end = run.run(whole, 6)
    early = run.run(parts, 3)
    assert early.snapshot.step == 3 and end.snapshot.step == 6 and not same(whole, parts)
    model = early.snapshot.dense(sm.models.Conv4(3, 1, 4, 16))
    late = make_run().run(model, 6, early.snapshot)
    assert same(model, whole) and late.loss == end.loss
    assert all(torch.equal(late.snapshot.model[name], value) for name, value in whole.state_dict().items())


@pytest.mark.parametrize("make_run", RUNS.values(), ids=RUNS)
def test_goes_on_from_its_checkpoint(make_run, tmp_path, monkeypatch):
    whole, path = make_model(), tmp_path / "run.safetensors"
    expected = make_run().run(whole, 6)
    with monkeypatch.context() as patch:
        fail_after(patch, make_run, 5)
        with pytest.raises(KeyboardInterrupt):
            make_run().run(make_model(), 6, checkpoint=path)
    model = make_model()
    found = make_run().run(model, 6, checkpoint=path)
    assert same(model, whole) and found.loss == expected.loss
    done = make_run().run(model := make_model(), 6, checkpoint=path)
    assert same(model, whole) and done.cost == found.cost


def fail_after(patch, make_run, steps):
    owner, name = (SupervisedRun, "_batch") if make_run is supervised_run else (sm.data.TaskSampler, "sample")
    original, calls = getattr(owner, name), []

    def counted(self, *args):
        calls.append(1)
        if len(calls) > steps:
            raise KeyboardInterrupt
        return original(self, *args)

    patch.setattr(owner, name, counted)


@pytest.mark.parametrize("make_run", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("frozen", [(), ("features.0.conv.weight",)])
def test_a_ticket_keeps_its_moments(make_run, frozen):
    def make_frozen():
        model = make_model()
        for name in frozen:
            model.get_parameter(name).requires_grad_(False)
        return model

    model, run = make_frozen(), make_run()
    early = run.run(model, 3).snapshot
    ticket = sm.Ticket.magnitude(model, 0.5)
    sparse, start = early.sparse(make_frozen(), ticket)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    for index, name in enumerate(names):
        for key, moment in start.optimizer["state"][index].items():
            if isinstance(moment, torch.Tensor) and name in ticket and moment.dim():
                assert torch.equal(moment, ticket[name].compress(early.optimizer["state"][index][key]))
    late = run.run(sparse, 6, start)
    assert late.snapshot.step == 6 and sm.ticket_of(sparse) == ticket
    plain, fresh = early.sparse(make_frozen(), ticket)
    run.run(plain, 6, Snapshot(0, fresh.model))
    assert not same(plain, sparse)  # step and moments make a difference


def test_supervised_rate_and_order():
    rates, seen = [], []

    def watch(x):
        seen.append(x)
        return x

    run = supervised_run(augment=watch)
    model = make_model()
    optimizer = run.run(model, 4).snapshot.optimizer
    rates.append(optimizer["param_groups"][0]["lr"])
    rates.append(run.run(make_model(), 5).snapshot.optimizer["param_groups"][0]["lr"])
    assert rates == pytest.approx([0.05, 0.005])
    epoch = torch.cat(seen[:2]).flatten(1)
    assert len(epoch.unique(dim=0)) == 16 and epoch.min() >= 0 and epoch.max() <= 1
    assert not torch.equal(seen[0], seen[2])


def test_bad_runs():
    with pytest.raises(ValueError, match="20 images, 20 labels and 0 steps"):
        supervised_run(steps=0)
    with pytest.raises(ValueError, match="one batch of 21"):
        supervised_run(batch=21)
    with pytest.raises(DivergenceError, match="step [2-6]: expected a finite loss"):
        supervised_run(lr=1e30).run(make_model(), 6)


def test_flops_by_hand():
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Flatten(), nn.Linear(32, 3))
    assert sample_flops(model, None, (1, 4, 4)) == 2 * (18 * 16 + 96)
    ticket = sm.Ticket.from_masks({"2.weight": torch.arange(96).view(3, 32) < 10})
    assert sample_flops(model, ticket, (1, 4, 4)) == 2 * (18 * 16 + 10)
    config = TrainConfig(ways=5, shots=2, queries=3, inner_steps=4, meta_batch=7)
    assert meta_passes(config) == 7 * (10 * 4 * 9 + 15 * 3)
    assert meta_passes(replace(config, first_order=True)) == 7 * (10 * 4 * 3 + 15 * 3)
    assert meta_run().passes == 2 * (3 * 9 + 6 * 3) and meta_run().input_size == (1, 16, 16)
    assert supervised_run().passes == 24 and supervised_run().input_size == (1, 16, 16)
