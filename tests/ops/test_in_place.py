"""Images are read where they lie, in whole vectors: nothing around them may show in a result, or be needed."""

from __future__ import annotations

import ctypes
import mmap
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

import sparsemeta as sm

# channels, size, images, kernel, dilation: planes of many vectors and of part of one; taps that reach past a plane.
SHAPES = [
    (16, (14, 14), 3, 3, 1),
    (16, (9, 7), 2, 3, 1),
    (16, (3, 3), 5, 3, 1),
    (16, (2, 1), 1, 3, 1),
    (16, (1, 1), 4, 1, 1),
    (32, (4, 4), 2, 7, 1),
    (16, (6, 40), 2, 3, 3),
    (1, (28, 28), 2, 5, 1),
    (3, (16, 16), 3, 3, 1),
    (48, (21, 21), 2, 3, 1),
]

pytestmark = pytest.mark.skipif(not sm.backends.cpu.extension(), reason="these are kernels of the extension")


def operands(channels, size, images, kernel, out=24):
    generator = torch.Generator().manual_seed(channels + sum(size) + kernel)
    pattern = sm.Pattern.from_mask(torch.rand(out, channels, kernel, kernel, generator=generator) < 0.3)
    x, g = (torch.randn(images, c, *size, generator=generator) for c in (channels, out))
    return pattern, torch.randn(pattern.nnz, generator=generator), x, g


def amid_nan(t: torch.Tensor) -> torch.Tensor:
    """The same tensor in the middle of memory that is not a number anywhere else."""
    room = torch.full((t.numel() + 4096,), float("nan"))
    at = 2048 - room.data_ptr() // 4 % 16  # keeps to whole vectors
    return room[at : at + t.numel()].copy_(t.flatten()).view(t.shape)


def results(x, values, pattern, g, padding, dilation, backend):
    x, values = x.detach().requires_grad_(), values.detach().requires_grad_()
    y = sm.masked_conv2d(x, values, pattern, None, 1, padding, dilation, backend=backend)
    return y.detach(), *torch.autograd.grad(y, (x, values), g)


@pytest.mark.parametrize("channels, size, images, kernel, dilation", SHAPES)
def test_nothing_around_the_images_is_seen(channels, size, images, kernel, dilation):
    pattern, values, x, g = operands(channels, size, images, kernel)
    rest = pattern, g, dilation * (kernel // 2), dilation
    wanted = results(x, values, *rest, "dense")
    for got, want in zip(results(amid_nan(x), values, pattern, amid_nan(g), *rest[2:], "cpu"), wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_tasks_and_images_apart_from_each_other():
    """A part of the channels, every second image: strides that are not those of a batch."""
    pattern, values, x, _ = operands(16, (14, 14), 6, 3)
    wide = torch.randn(6, 48, 14, 14)
    wide[::2, 16:32] = x[:3]
    got = sm.masked_conv2d(wide[::2, 16:32], values, pattern, padding=1, backend="cpu")
    torch.testing.assert_close(got, F.conv2d(x[:3], pattern.expand(values), padding=1), rtol=1e-4, atol=1e-4)
    shared = x[:1].expand(4, -1, -1, -1)
    got = sm.masked_conv2d(shared, values, pattern, padding=1, backend="cpu")
    torch.testing.assert_close(got, F.conv2d(shared, pattern.expand(values), padding=1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("threads", [1, 2])
def test_wide_layers(threads):
    """Threads share the code instead of the positions, and of the weight gradient's sums only the totals are kept."""
    torch.set_num_threads(threads)
    pattern, values, x, g = operands(480, (7, 7), 3, 3, out=900)
    pattern = sm.Pattern.from_mask(pattern.mask() & (torch.arange(480).view(-1, 1, 1) % 7 == 0))
    values = values[: pattern.nnz]
    wanted = results(x, values, pattern, g, 1, 1, "dense")
    for got, want in zip(results(x, values, pattern, g, 1, 1, "cpu"), wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4 * float(want.abs().max()))


def guarded(shape: tuple[int, ...], at_start: bool) -> torch.Tensor:
    """A tensor that starts or ends where memory that may not be read begins."""
    page, count = mmap.PAGESIZE, torch.Size(shape).numel()
    pages = -(-4 * count // page)
    memory = mmap.mmap(-1, (pages + 2) * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for guard in (start, start + (pages + 1) * page):
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(guard), page, 0) == 0
    offset = page if at_start else (pages + 1) * page - 4 * count // 64 * 64
    return torch.frombuffer(memory, dtype=torch.float32, count=count // 16 * 16, offset=offset).view(shape)


def read_to_the_edge(channels: int, height: int, width: int, images: int, kernel: int) -> None:
    pattern, values, x, g = operands(channels, (height, width), images, kernel, out=channels)
    for at_start in (True, False):
        held = [guarded(t.shape, at_start).copy_(t) for t in (x, g)]
        results(held[0], values, pattern, held[1], kernel // 2, 1, "cpu")


def test_memory_around_the_images_is_not_read():
    """In a process of its own: reading there would end it."""
    shapes = [(16, 14, 14, 2, 3), (16, 3, 3, 1, 3), (16, 5, 8, 3, 5), (64, 21, 21, 1, 3), (16, 1, 1, 2, 3)]
    code = f"import test_in_place\nfor shape in {shapes}: test_in_place.read_to_the_edge(*shape)"
    folder = __file__.rpartition("/")[0]
    run = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
