"""What is captured in a CUDA graph, when, and when no longer: everything but CUDA, with a capture that calls again."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparsemeta.meta import MAML, TrainConfig, adapt_tasks, graphs, make_learner, make_optimizer, meta_step


class Again:
    """In place of `CudaCapture`: a replay calls the function and writes over its first results, as a graph does."""

    made: list[Again]

    def __init__(self, function, device):
        self.function, self.device, self.replays = function, device, 0
        self.results = [None if t is None else t.detach().clone() for t in function()]
        self.made.append(self)

    @staticmethod
    def reasons(device: torch.device) -> list[str]:
        return []

    def replay(self) -> None:
        self.replays += 1
        for mine, new in zip(self.results, self.function(), strict=True):
            assert (mine is None) == (new is None)
            if mine is not None:
                mine.detach().copy_(new)


@pytest.fixture
def captures(monkeypatch) -> list[Again]:
    monkeypatch.setattr(Again, "made", [], raising=False)
    monkeypatch.setattr(graphs, "CudaCapture", Again)
    return Again.made


def trained(net, sampler, settings, graph: str, steps: int = 4, **more) -> tuple[MAML, list[tuple[float, float]]]:
    config = TrainConfig(**settings, engine="autograd", graph=graph, **more)
    learner = make_learner(net(), config)
    optimizer, tasks = make_optimizer(learner, config), sampler()
    return learner, [meta_step(learner, tasks.sample(2), optimizer, config) for _ in range(steps)]


@pytest.mark.parametrize(
    "more", [{}, {"first_order": True}, {"memory_format": "channels_last"}, {"algorithm": "meta_sgd"}], ids=str
)
def test_replayed_meta_steps_are_those_of_eager_ones(net, sampler, settings, captures, more):
    learner, told = trained(net, sampler, settings, "auto", **more)
    expected_learner, expected = trained(net, sampler, settings, "off", **more)
    assert [c.replays for c in captures] == [3]  # the first meta-step runs as it is
    assert told == expected
    for p, q in zip(learner.parameters(), expected_learner.parameters(), strict=True):
        assert torch.equal(p, q)


def test_asked_for_it_is_captured_at_once(net, sampler, settings, captures):
    trained(net, sampler, settings, "on", steps=2)
    assert [c.replays for c in captures] == [2]


def test_buffers_have_the_type_and_layout_that_the_learner_takes(net, sampler, settings, captures, monkeypatch):
    config = TrainConfig(**settings, engine="autograd", graph="on", memory_format="channels_last")
    learner = make_learner(net().double(), config)
    meta_step(learner, sampler().sample(2), make_optimizer(learner, config), config)
    [entry] = graphs._kept[learner.module].values()
    support_x, support_y, *_ = entry.buffers
    assert support_x.dtype == torch.float64 and support_x[0].is_contiguous(memory_format=torch.channels_last)
    assert support_y.dtype == torch.int64
    assert captures[0].device == next(learner.parameters()).device


def test_other_shapes_and_other_memory_are_captured_anew(net, sampler, settings, captures):
    config = TrainConfig(**settings, engine="autograd", graph="on")
    learner, tasks = make_learner(net(), config), sampler()
    optimizer = make_optimizer(learner, config)

    def step(count: int) -> int:
        meta_step(learner, tasks.sample(count), optimizer, config)
        return len(captures)

    assert [step(2), step(2), step(3), step(2)] == [1, 1, 2, 2]
    learner.module[0].weight.data = learner.module[0].weight.data.clone()
    assert step(2) == 3
    learner.lr = 0.2
    assert step(2) == 4
    learner.module[0].bias.requires_grad_(False)
    assert step(2) == 5
    learner.module.eval()
    assert step(2) == 6 and len(graphs._kept[learner.module]) == graphs.KEPT


def test_what_cannot_be_captured_says_so_once_and_runs_on(net, sampler, settings, monkeypatch):
    class Refusing(Again):
        def __init__(self, function, device):
            raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(graphs, "CudaCapture", Refusing)
    with pytest.warns(UserWarning, match="RuntimeError: operation not permitted.*without a CUDA graph") as told:
        _, losses = trained(net, sampler, settings, "auto")
    assert len(told) == 1 and losses == trained(net, sampler, settings, "off")[1]
    with pytest.raises(ValueError, match='graph="on"; it could not be captured.*Use graph="auto"'):
        trained(net, sampler, settings, "on")


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"algorithm": "maml++"}, "the schedule of a MAMLPlusPlus changes"),
        ({"second_order": "stepwise"}, "restores random numbers in backward"),
    ],
)
def test_what_changes_from_step_to_step_is_not_captured(net, sampler, settings, captures, more, reason):
    trained(net, sampler, settings, "auto", steps=3, **more)
    assert not captures
    with pytest.raises(ValueError, match=reason):
        trained(net, sampler, settings, "on", **more)


def test_without_a_gpu_nothing_is_captured(net, sampler, settings):
    trained(net, sampler, settings, "auto", steps=3)
    with pytest.raises(ValueError, match="the model is on cpu, not on a GPU"):
        trained(net, sampler, settings, "on")
    with pytest.raises(ValueError, match="expected graph to be one of 'auto', 'off', 'on'; got 'fast'"):
        TrainConfig(graph="fast")


def test_adapted_tasks_are_captured_where_nobody_differentiates_them(net, sampler, captures):
    model, first, second = net(), *(sampler(seed).sample(3) for seed in (1, 2))

    def adapted(tasks, graph="auto"):
        return adapt_tasks(model, tasks.support_x, tasks.support_y, 2, 0.1, graph=graph)

    expected = adapted(first)
    assert all(w.requires_grad for w in expected.values()) and not captures
    with torch.no_grad():
        found = [adapted(tasks) for tasks in (first, first, second)]
    assert len(captures) == 1 and captures[0].replays == 2
    for weights in found[:2]:  # the third has not overwritten the second
        for name, w in weights.items():
            assert not w.requires_grad
            torch.testing.assert_close(w, expected[name].detach())
    with pytest.raises(ValueError, match="call it under torch.no_grad"):
        adapted(first, graph="on")


def test_a_model_that_is_gone_takes_its_graphs_along(net, sampler, monkeypatch):
    class Forgetful(Again):
        made = []

        def __init__(self, function, device):
            super().__init__(function, device)
            self.function = None  # as CUDA keeps launches, not Python's objects

    monkeypatch.setattr(graphs, "CudaCapture", Forgetful)
    monkeypatch.setattr(Forgetful, "replay", lambda self: None)
    before = len(graphs._kept)
    model: nn.Module | None = net()
    tasks = sampler().sample(2)
    with torch.no_grad():
        adapt_tasks(model, tasks.support_x, tasks.support_y, 1, 0.1, graph="on")
    assert len(graphs._kept) == before + 1
    Forgetful.made.clear()
    model = None
    assert len(graphs._kept) == before
