"""TaskSampler: what a task is made of, and the stream of tasks."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load, save

from sparsemeta.data import ImageClasses, Task, TaskSampler

COUNTS = [4, 9, 5, 4, 7, 6, 8]
LABELS = torch.arange(len(COUNTS)).repeat_interleave(torch.tensor(COUNTS))
# Two channels tell each image and its class: (position, class).
DATASET = ImageClasses(
    torch.stack([torch.arange(len(LABELS)), LABELS], 1).to(torch.uint8)[..., None, None].repeat(1, 1, 2, 3),
    LABELS,
    [f"class{i}" for i in range(len(COUNTS))],
)


def identity(x):
    """Positions and classes ``[T, N]`` of images ``[T, N, 2, 2, 3]``."""
    return (x[:, :, :, 0, 0] * 255).round().long().unbind(2)


def test_shapes_types_and_range():
    tasks = TaskSampler(DATASET, ways=3, shots=1, queries=2).sample(5)
    assert tasks.support_x.shape == (5, 3, 2, 2, 3) and tasks.query_x.shape == (5, 6, 2, 2, 3)
    assert tasks.support_x.dtype == torch.float32 and tasks.support_y.dtype == torch.int64
    assert tasks.support_y.tolist() == [[0, 1, 2]] * 5
    assert tasks.query_y.tolist() == [[0, 0, 1, 1, 2, 2]] * 5
    bright = ImageClasses(torch.full((4, 1, 1, 1), 255, dtype=torch.uint8), torch.tensor([0, 0, 1, 1]), ["a", "b"])
    assert TaskSampler(bright, ways=2, queries=1).sample(1).query_x.unique().tolist() == [1.0]


def test_classes_are_distinct_and_support_and_query_are_disjoint():
    ways, shots, queries = 4, 2, 2
    tasks = TaskSampler(DATASET, ways, shots, queries).sample(300)
    (support, support_class), (query, query_class) = identity(tasks.support_x), identity(tasks.query_x)
    drawn = torch.cat([support, query], 1).sort(1).values
    assert (drawn.diff(dim=1) > 0).all(), "an image is twice in a task"
    classes = support_class[:, ::shots]
    assert (classes.sort(1).values.diff(dim=1) > 0).all(), "a class is twice in a task"
    assert torch.equal(classes.gather(1, tasks.support_y), support_class)
    assert torch.equal(classes.gather(1, tasks.query_y), query_class)
    assert torch.equal(LABELS[query], query_class)


def test_every_image_is_drawn_equally_often():
    tasks = TaskSampler(DATASET, ways=2, shots=1, queries=1, seed=3).sample(20_000)
    for x in (tasks.support_x, tasks.query_x):
        expected = 20_000 * 2 / len(COUNTS) / torch.tensor(COUNTS)[LABELS]
        often = torch.bincount(identity(x)[0].flatten(), minlength=len(LABELS))
        assert ((often - expected).abs() < 5 * expected.sqrt()).all()  # five standard deviations


def test_seed_fixes_the_stream_however_it_is_cut():
    whole = TaskSampler(DATASET, ways=3, queries=2, seed=4).sample(8)
    torch.rand(7)  # another user of random numbers
    sampler = TaskSampler(DATASET, ways=3, queries=2, seed=4)
    parts = sampler.sample(3), sampler.sample(5)
    assert torch.equal(whole.support_x, torch.cat([part.support_x for part in parts]))
    assert torch.equal(whole.query_x, torch.cat([part.query_x for part in parts]))
    assert not torch.equal(whole.query_x, TaskSampler(DATASET, ways=3, queries=2, seed=5).sample(8).query_x)
    assert not torch.equal(whole.query_x, sampler.sample(8).query_x)


def test_global_random_numbers_are_left_alone():
    before = torch.get_rng_state()
    TaskSampler(DATASET, ways=3, queries=2).sample(2)
    assert torch.equal(before, torch.get_rng_state())


def test_resumes_from_a_saved_state():
    sampler = TaskSampler(DATASET, ways=3, queries=2, seed=4)
    sampler.sample(3)
    state = load(save(sampler.state_dict()))
    expected = sampler.sample(2)
    resumed = TaskSampler(DATASET, ways=3, queries=2, seed=99)
    resumed.load_state_dict(state)
    assert torch.equal(expected.query_x, resumed.sample(2).query_x)


@pytest.mark.parametrize("state", [{}, {"generator": 3}, {"generator": torch.zeros(8, dtype=torch.uint8)}])
def test_a_state_of_something_else_changes_nothing(state):
    sampler = TaskSampler(DATASET, ways=3, queries=2, seed=4)
    with pytest.raises(ValueError, match=r"expected \{'generator': uint8 .*TaskSampler.state_dict"):
        sampler.load_state_dict(state)
    assert torch.equal(sampler.sample(1).query_x, TaskSampler(DATASET, ways=3, queries=2, seed=4).sample(1).query_x)


def test_tasks_iterate_one_by_one():
    tasks = TaskSampler(DATASET, ways=3, queries=2).sample(4)
    listed = list(tasks)
    assert len(tasks) == len(listed) == 4
    assert isinstance(listed[0], Task)
    support_x, support_y, query_x, query_y = listed[3]
    assert torch.equal(support_x, tasks.support_x[3]) and torch.equal(query_y, tasks.query_y[3])
    assert support_y.shape == (3,) and query_x.shape == (6, 2, 2, 3)


def test_to_a_memory_format_keeps_the_values():
    tasks = TaskSampler(DATASET, ways=3, queries=2).sample(4)
    placed = tasks.to("cpu", memory_format=torch.channels_last)
    assert torch.equal(placed.query_x, tasks.query_x) and torch.equal(placed.support_y, tasks.support_y)
    for task in placed.to("cpu"):
        assert task.query_x.is_contiguous(memory_format=torch.channels_last)
        assert not task.query_x.is_contiguous()
    assert placed.to(memory_format=torch.contiguous_format).support_x.is_contiguous()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_same_tasks_on_another_device():
    here = TaskSampler(DATASET, ways=3, queries=2).sample(4)
    there = TaskSampler(DATASET.to("cuda"), ways=3, queries=2).sample(4)
    assert there.query_y.is_cuda
    assert torch.equal(here.query_x, there.query_x.cpu())


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"ways": 8}, "expected at least 8 classes; got 7. Lower ways"),
        ({"shots": 3, "queries": 2}, r"expected at least 3 \+ 2 images in every class; got 4 in 'class0'"),
        ({"shots": 0}, "must be at least 1; got 5, 0 and 1"),
        ({"ways": -1}, "must be at least 1; got -1, 1 and 1"),
    ],
)
def test_tasks_that_the_data_set_cannot_give(task, message):
    with pytest.raises(ValueError, match=message):
        TaskSampler(DATASET, **{"queries": 1, **task})


def test_no_tasks():
    with pytest.raises(ValueError, match="at least 1 task; got 0"):
        TaskSampler(DATASET, queries=1).sample(0)
