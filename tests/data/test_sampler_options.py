"""TaskSampler: device, type and normalisation change what a task's images are, never which they are."""

from __future__ import annotations

import pytest
import torch

from sparsemeta.data import ImageClasses, TaskSampler


@pytest.fixture
def images() -> ImageClasses:
    pixels = torch.randint(0, 256, (24, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return ImageClasses(pixels, torch.arange(6).repeat_interleave(4), [str(i) for i in range(6)])


def test_statistics_are_those_of_all_pixels(images):
    x = images.images.double() / 255
    mean, deviation = images.statistics()
    assert mean == pytest.approx(x.mean((0, 2, 3)).tolist(), rel=1e-12)
    assert deviation == pytest.approx(x.std((0, 2, 3), correction=0).tolist(), rel=1e-10)


def test_normalised_images(images):
    plain = TaskSampler(images, 3, 1, 2, seed=4, dtype=torch.float64).sample(2)
    mean, deviation = images.statistics()
    tasks = TaskSampler(images, 3, 1, 2, seed=4, dtype=torch.float64, normalise=(mean, deviation)).sample(2)
    for got, x in ((tasks.support_x, plain.support_x), (tasks.query_x, plain.query_x)):
        assert got.dtype == torch.float64
        expected = torch.stack([(x[:, :, c] - mean[c]) / deviation[c] for c in range(3)], 2)
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(tasks.query_y, plain.query_y)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_device_is_where_images_are_held_and_tasks_lie(images):
    sampler = TaskSampler(images, 3, 1, 2, device="cuda")
    tasks, expected = sampler.sample(2), TaskSampler(images, 3, 1, 2).sample(2)
    assert sampler.dataset.images.is_cuda and tasks.query_x.is_cuda and tasks.query_y.is_cuda
    assert torch.equal(tasks.query_x.cpu(), expected.query_x)


@pytest.mark.parametrize("wrong", [([0.5], [0.5]), ([0.5] * 3, [0.5, 0, 0.5]), ([0.5] * 3,)])
def test_statistics_that_do_not_fit(images, wrong):
    with pytest.raises(ValueError, match="expected mean and a deviation above 0 of each of 3 channels"):
        TaskSampler(images, 3, 1, 2, normalise=wrong)
