"""Checkpoints: what goes in comes out, whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sparsemeta.meta import CheckpointError, TrainConfig, checkpoint, train
from sparsemeta.meta.checkpoint import KEY, load_checkpoint, save_checkpoint


def test_round_trip(tmp_path):
    tensor = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    state = {"a": [1, 2.5, None, True, "x"], 3: (torch.arange(4), {"b": torch.tensor(0.1)}), "c": {}, "d": tensor}
    save_checkpoint(tmp_path / "c", state)
    loaded = load_checkpoint(tmp_path / "c")
    assert list(loaded) == list(state) and loaded["a"] == state["a"] and loaded["c"] == {}
    assert isinstance(loaded[3], tuple) and torch.equal(loaded[3][0], state[3][0]) and loaded[3][1]["b"].dim() == 0
    assert torch.equal(loaded["d"], tensor) and loaded["d"].stride() == tensor.stride()


def test_tensors_that_share_memory(tmp_path):
    x = torch.arange(6.0)
    save_checkpoint(tmp_path / "c", [x, x[:3], x.view(2, 3).T])
    loaded = load_checkpoint(tmp_path / "c")
    assert torch.equal(loaded[1], x[:3]) and torch.equal(loaded[2], x.view(2, 3).T)


def test_others_may_read_it_as_any_new_file(tmp_path):
    save_checkpoint(tmp_path / "c", [torch.zeros(1)])
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "c").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "c", [1])
    with pytest.raises(TypeError, match="expected tensors, numbers.*at /b/0"):
        save_checkpoint(tmp_path / "c", {"b": [object()]})

    def full(*args):
        raise OSError("disk full")

    monkeypatch.setattr("sparsemeta.files.os.replace", full)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(tmp_path / "c", [2])
    assert load_checkpoint(tmp_path / "c") == [1] and os.listdir(tmp_path) == ["c"]


@pytest.fixture
def trained(net, sampler, settings, tmp_path):
    """A checkpoint, and a function that resumes from it."""
    config, file = TrainConfig(**settings, steps=2), tmp_path / "c.safetensors"
    train(net(), sampler(), config, file, progress=False)

    def resume(model: nn.Module | None = None, **changes):
        model = model or net()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(CheckpointError) as error:
            train(model, sampler(), dataclasses.replace(config, **changes), file, resume=True, progress=False)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        return str(error.value)

    return file, resume


def test_a_truncated_file_is_refused_at_every_length(trained):
    file, resume = trained
    whole = file.read_bytes()
    for length in [0, 7, 8, 100, len(whole) // 2, len(whole) - 1]:
        file.write_bytes(whole[:length])
        assert "truncated or something else" in resume()


HOSTILE = {
    "not safetensors": b"PK\x03\x04 pickle" * 20,
    "no header": {},
    "no JSON": {KEY: "{"},
    "deep": {KEY: "[" * 100000},
    "a list": {KEY: "[]"},
    "other version": {KEY: '{"version": 99, "state": 1}'},
    "missing tensor": {KEY: '{"version": 1, "state": ["tensor", "nowhere"]}'},
    "unknown kind": {KEY: '{"version": 1, "state": ["code", "x"]}'},
    "unhashable key": {KEY: '{"version": 1, "state": ["dict", [[[1], 2]]]}'},
    "no run": {KEY: '{"version": 1, "state": ["dict", []]}'},
    "a number": {KEY: '{"version": 1, "state": 3}'},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused(trained, case):
    file, resume = trained
    if isinstance(HOSTILE[case], bytes):
        file.write_bytes(HOSTILE[case])
    else:
        save_file({"x": torch.zeros(1)}, file, HOSTILE[case])
    message = resume()
    assert "expected a checkpoint" in message and "start without resume" in message


def test_moments_of_another_shape_are_refused(trained):
    file, resume = trained
    tensors = load_file(file)
    with checkpoint.safe_open(file, "pt") as opened:
        header = opened.metadata()
    tensors["/optimizer/state/0/exp_avg"] = torch.zeros(10**6)
    save_file(tensors, file, header)
    assert "moments do not fit the parameters [0]" in resume()
    assert json.loads(header[KEY])["version"] == 1


def test_another_run_is_refused_and_says_how(trained, net):
    file, resume = trained
    assert "inner_lr was 0.1 and is 0.2; first_order was False and is True" in resume(inner_lr=0.2, first_order=True)
    assert "made 2 steps and steps is 1" in resume(steps=1)
    assert "only one of the two models has ['1.num_batches" in resume(net(track_running_stats=True))
    wider = net()
    wider[0] = nn.Conv2d(1, 4, 5, stride=2, padding=1)
    assert "the models differ in ['0.weight']" in resume(wider)
    file.unlink()
    assert "there is no such file. Check the path" in resume()


class Described(nn.Linear):
    """A layer with something in its state that is no weight, as a pattern is."""

    def __init__(self, mark: int):
        super().__init__(36, 3)
        self.mark = mark

    def get_extra_state(self):
        return {"mark": self.mark}

    def set_extra_state(self, state):
        self.mark = state["mark"]


def test_a_model_with_another_pattern_is_refused(net, sampler, settings, tmp_path):
    def described(mark: int) -> nn.Module:
        model = net()
        model[5] = Described(mark)
        return model

    config, file = TrainConfig(**settings, steps=1), tmp_path / "c"
    train(described(1), sampler(), config, file, progress=False)
    assert train(described(1), sampler(), config, file, resume=True, progress=False).history
    with pytest.raises(CheckpointError, match=r"the models differ in \['5._extra_state'\]"):
        train(described(2), sampler(), config, file, resume=True, progress=False)
