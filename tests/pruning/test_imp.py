"""Iterative magnitude pruning on a toy problem."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import sparsemeta as sm
from sparsemeta.meta import CheckpointError
from sparsemeta.pruning import RewindStore, SupervisedRun, find_ticket, sample_flops


def make_model() -> nn.Module:
    torch.manual_seed(3)
    head = nn.Linear(8 * 16, 16), nn.ReLU(), nn.Linear(16, 2)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), *head)


class ToyRun(SupervisedRun):
    """Is an image brighter on its left or on its right? May be interrupted after so many steps."""

    left: int | None = None

    def _step(self, *args):
        if self.left is not None:
            object.__setattr__(self, "left", self.left - 1)
            if self.left < 0:
                raise KeyboardInterrupt
        return super()._step(*args)


def make_run(left=None, **more) -> ToyRun:
    images = torch.rand(64, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    labels = (images[..., :3].sum((1, 2, 3)) > images[..., 3:].sum((1, 2, 3))).long()
    run = ToyRun(images, labels, **{"steps": 40, "batch": 32, "lr": 0.1, "checkpoint_every": 10, **more})
    object.__setattr__(run, "left", left)
    return run


def search(run=None, **more):
    return find_ticket("imp", make_model(), run=run or make_run(), rewind=5, progress=False, **more)


@pytest.fixture(scope="module")
def found():
    torch.set_num_threads(1)
    return search(sparsity=0.6)


def test_rounds_prune_a_fifth_and_only_what_is_left(found):
    assert [round(r["sparsity"], 2) for r in found.trace] == [0.2, 0.36, 0.49, 0.6]
    assert found.ticket.sparsity == pytest.approx(0.6, abs=1e-3)
    assert [r["trained_sparsity"] for r in found.trace[1:]] == [r["sparsity"] for r in found.trace[:-1]]
    assert found.trace[-1]["kept"] == found.ticket.kept


def test_tickets_are_nested_and_follow_the_trained_magnitudes(tmp_path):
    search(sparsity=0.36, state=tmp_path)
    first, second = (sm.Ticket.load(tmp_path / f"ticket_{k}.safetensors") for k in (1, 2))
    assert all(not (mask & ~first.masks()[name]).any() for name, mask in second.masks().items())
    dense = RewindStore(tmp_path).load("round_1").dense(make_model())
    assert sm.Ticket.magnitude(dense, 0.2) == first
    sparse = sm.sparsify(make_model(), first)
    sparse.load_state_dict(RewindStore(tmp_path).load("round_2").model)
    assert sm.Ticket.magnitude(sm.densify(sparse), 0.36) == second


def test_every_round_starts_from_theta_r(tmp_path):
    result = search(sparsity=0.36, state=tmp_path)
    store = RewindStore(tmp_path)
    assert store.load("theta_0").step == 0 and store.load("theta_r").step == 5
    assert all(torch.equal(store.load("theta_0").model[n], value) for n, value in make_model().state_dict().items())
    assert torch.equal(result.rewind.model["0.weight"], store.load("theta_r").model["0.weight"])
    early = make_run().run(model := make_model(), 5).snapshot
    assert torch.equal(early.model["5.weight"], result.rewind.model["5.weight"])
    sparse, start = early.sparse(model, sm.Ticket.load(tmp_path / "ticket_1.safetensors"))
    make_run().run(sparse, 40, start)
    kept = store.load("round_2").model
    assert all(torch.equal(kept[name], value) for name, value in sparse.state_dict().items())


def test_cost_is_steps_times_passes_times_the_tickets_flops(found):
    first, second = found.trace[:2]
    dense = sample_flops(make_model(), None, (1, 6, 6))
    assert first["steps"] == 40 and first["flops"] == 40 * 3 * 32 * dense
    assert second["steps"] == 35 and 0.2 * dense < second["flops"] / (35 * 3 * 32) < dense
    assert found.cost.flops == sum(r["flops"] for r in found.trace)
    assert found.cost.seconds == pytest.approx(sum(r["seconds"] for r in found.trace))
    assert all(r["seconds"] >= r["training_seconds"] > 0 for r in found.trace)


@pytest.mark.parametrize("steps", [3, 22, 58, 130])
def test_interrupted_anywhere_it_finds_the_same_ticket(found, tmp_path, steps):
    with pytest.raises(KeyboardInterrupt):
        search(make_run(left=steps), sparsity=0.6, state=tmp_path)
    resumed = search(sparsity=0.6, state=tmp_path, resume=True)
    assert resumed.ticket == found.ticket
    assert [r["loss"] for r in resumed.trace] == [r["loss"] for r in found.trace]
    again = search(make_run(left=0), sparsity=0.6, state=tmp_path, resume=True)  # trains nothing
    assert again.ticket == found.ticket and again.cost == resumed.cost


def test_the_model_stays():
    model = make_model()
    find_ticket("imp", model, run=make_run(), sparsity=0.2, progress=False)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in make_model().state_dict().items())


def test_a_round_trains_the_sparse_model(monkeypatch):
    kinds = []
    original = ToyRun._step

    def seen(self, model, *args):
        kinds.append(type(model[0]).__name__)
        return original(self, model, *args)

    monkeypatch.setattr(ToyRun, "_step", seen)
    search(sparsity=0.36)
    assert kinds == ["Conv2d"] * 40 + ["SparseConv2d"] * 35


def test_blocks_and_other_schedules():
    result = search(sparsity=0.75, kind="2x1", schedule="gradual", rounds=3, exclude="5")
    assert len(result.trace) == 3 and result.ticket["0.weight"].block == (2, 1, 1, 1)
    assert "5.weight" not in result.ticket
    result = search(sparsity=0.6, kind={"3.weight": "2:4"})
    assert [round(r["sparsity"], 2) for r in result.trace] == [0.6]  # below a half there is no 2:4


def test_one_shot_magnitude_trains_once(tmp_path):
    result = find_ticket("magnitude", make_model(), run=make_run(), sparsity=0.6, rewind=5, progress=False)
    make_run().run(model := make_model(), 40)
    assert result.ticket == sm.Ticket.magnitude(model, 0.6) and result.rewind.step == 5 and len(result.trace) == 1


BAD = {
    "no run": ({"run": None}, ValueError, "expected a training run"),
    "rewind": ({"rewind": 40}, ValueError, "below the run's 40 steps, got 40"),
    "option": ({"round": 3}, ValueError, r"expected options among \['fraction', 'rounds'\].*got \['round'\]"),
    "schedule": ({"schedule": "cubic"}, ValueError, "got 'cubic'"),
    "provenance": ({"provenance": {"made": object()}}, sm.TicketError, "provenance that JSON can hold"),
    "resume nowhere": ({"resume": True}, ValueError, "expected state"),
}


@pytest.mark.parametrize(("arguments", "error", "message"), BAD.values(), ids=BAD)
def test_bad_arguments_before_any_training(arguments, error, message):
    with pytest.raises(error, match=message):
        find_ticket("imp", make_model(), **{"run": make_run(left=0), "progress": False, **arguments})


def test_a_folder_of_another_search(tmp_path):
    with pytest.raises(CheckpointError, match="there is none"):
        search(state=tmp_path, resume=True)
    search(sparsity=0.2, state=tmp_path)
    with pytest.raises(CheckpointError, match="resume it"):
        search(sparsity=0.2, state=tmp_path)
    with pytest.raises(CheckpointError, match=r"got other \['levels'\]"):
        search(sparsity=0.3, state=tmp_path, resume=True)
    with pytest.raises(CheckpointError, match=r"got other \['run'\]"):
        search(make_run(lr=0.2), sparsity=0.2, state=tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="first weights"):
        other = sm.pruning.reinitialise(make_model())
        find_ticket("imp", other, run=make_run(), rewind=5, sparsity=0.2, state=tmp_path, resume=True, progress=False)
    state = json.loads((tmp_path / "state.json").read_text())
    del state["records"]
    (tmp_path / "state.json").write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match="damaged"):
        search(sparsity=0.2, state=tmp_path, resume=True)


def test_a_sparse_model_is_refused():
    sparse = sm.sparsify(make_model(), sm.Ticket.magnitude(make_model(), 0.5))
    with pytest.raises(ValueError, match="densify"):
        find_ticket("imp", sparse, run=make_run(), progress=False)
