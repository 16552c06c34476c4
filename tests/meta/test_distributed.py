"""Two processes do what one does, only the first writes, and one that dies stops the other with a word and a way on.

The processes run ``rank.py`` beside this file, with gloo and one thread each, forked from a server that has imported
the package once.
"""

from __future__ import annotations

import multiprocessing
import socket
from pathlib import Path

import pytest
import rank
import torch

from sparsemeta.meta import Ranks, TrainConfig, train
from sparsemeta.meta.checkpoint import load_checkpoint
from sparsemeta.meta.log import read_lines

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch is without distributed")
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["sparsemeta.meta"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(folder: Path, world: int, **options) -> list[tuple[int, str]]:
    """Exit code and error of each process of a run in ``folder``."""
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(world)}
    errors = [folder.with_name(f"{folder.name}.{i}.txt") for i in range(world)]
    jobs = [
        SERVER.Process(target=rank.main, args=({**common, "RANK": str(i)}, folder, errors[i]), kwargs=options)
        for i in range(world)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    return [(job.exitcode, file.read_text() if file.exists() else "") for job, file in zip(jobs, errors, strict=True)]


def trained(folder: Path, world: int, **options) -> dict:
    folder.mkdir(exist_ok=True)
    assert start(folder, world, **options) == [(0, "")] * world
    return load_checkpoint(folder / "run.safetensors")


def assert_same(a: dict, b: dict) -> None:
    torch.testing.assert_close(a["history"][:, :2], b["history"][:, :2], rtol=1e-11, atol=1e-11)
    for name, value in a["model"].items():
        torch.testing.assert_close(value, b["model"][name], rtol=1e-10, atol=1e-10)
    for x, y in zip(a["validations"], b["validations"], strict=True):
        assert x == pytest.approx(y, rel=1e-9)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict:
    return trained(tmp_path_factory.mktemp("alone") / "run", 1)


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_two_processes_equal_one(folder, alone):
    together = trained(folder, 2)  # 3 tasks a step: one process has 1 of them, the other 2
    assert together["model"]["0.weight"].dtype == torch.float64 and len(together["history"]) == 4
    assert_same(alone, together)
    assert sorted(file.name for file in folder.iterdir()) == ["log.jsonl", "run.best.safetensors", "run.safetensors"]
    assert [line["step"] for line in read_lines(folder / "log.jsonl")] == [1, 2, 2, 3, 4, 4]


def test_a_process_that_dies_stops_the_other_and_the_run_resumes(folder, alone):
    (code, message), dead = start(folder, 2, die_at=3)
    assert dead == (7, "") and code == 5
    assert "another process of the run has ended or does not answer" in message and "--resume" in message
    assert len(load_checkpoint(folder / "run.safetensors")["history"]) == 2
    for file in folder.parent.glob("*.txt"):
        file.unlink()
    assert_same(alone, trained(folder, 2, resume=True))


def test_processes_that_differ_do_not_start(folder):
    for code, message in start(folder, 2, seed_by_rank=True):
        assert code == 5 and "expected the same weights, steps and tasks on all 2 processes" in message
    assert not list(folder.iterdir())


def test_shares_are_a_partition_as_even_as_can_be():
    for world in (1, 2, 3, 5):
        spans = [range(7)[Ranks(rank, world).span(7)] for rank in range(world)]
        assert [task for span in spans for task in span] == list(range(7))
        assert max(map(len, spans)) - min(map(len, spans)) <= 1


def test_too_few_tasks_are_named(net, sampler, settings, monkeypatch):
    monkeypatch.setattr(Ranks, "current", lambda: Ranks(0, 3))
    with pytest.raises(ValueError, match="expected a task for each of 3 processes; got meta_batch=2"):
        train(net(), sampler(), TrainConfig(**settings), progress=False)
