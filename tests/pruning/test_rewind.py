"""Snapshots on disk."""

from __future__ import annotations

import pytest
import torch

from sparsemeta.meta import CheckpointError
from sparsemeta.pruning import RewindStore, Snapshot


def test_a_snapshot_comes_back_as_it_was(tmp_path):
    store = RewindStore(tmp_path / "store")
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert "theta_r" not in store
    store.save("theta_r", Snapshot(1, model.state_dict(), optimizer.state_dict(), {"place": torch.arange(3)}))
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer.step()
    found = store.load("theta_r")
    assert "theta_r" in store and found.step == 1 and found.extra["place"].tolist() == [0, 1, 2]
    assert all(torch.equal(found.dense(torch.nn.Linear(3, 2)).state_dict()[name], kept[name]) for name in kept)
    other = torch.optim.Adam(model.parameters())
    other.load_state_dict(found.optimizer)
    assert other.param_groups[0]["lr"] == 0.1 and other.state[model.weight]["step"] == 1


def test_what_is_not_there_or_damaged(tmp_path):
    store = RewindStore(tmp_path)
    with pytest.raises(CheckpointError, match="no such file"):
        store.load("theta_0")
    store.save("theta_0", Snapshot(0, {"weight": torch.ones(100)}))
    file = tmp_path / "theta_0.safetensors"
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match="truncated"):
        store.load("theta_0")
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
