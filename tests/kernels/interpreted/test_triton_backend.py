"""The Triton backend through the public functions: vmap, linear layers, modules, what it refuses, determinism."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sparsemeta as sm
from sparsemeta.backends import triton, triton_tables

TIGHT = {"rtol": 1e-5, "atol": 1e-5}


def block_pattern(*shape: int, block: tuple[int, ...] = (16, 16)) -> sm.Pattern:
    counts = [n // b for n, b in zip(shape, block + (1,) * (len(shape) - len(block)), strict=True)]
    mask = (torch.rand(counts) < 0.6).repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    return sm.Pattern.from_mask(mask, block)


def counted(monkeypatch) -> list[str]:
    """Names of the kernels that are launched from now on."""
    launched = []
    for name in ("gather_conv2d", "weight_grad_conv2d"):
        kernel = getattr(triton._kernels(), name)
        spy = _Spy(kernel, launched)
        monkeypatch.setattr(triton._kernels(), name, spy)
    return launched


class _Spy:
    def __init__(self, kernel, launched: list[str]):
        self.kernel, self.launched = kernel, launched

    def __getitem__(self, grid):
        self.launched.append(self.kernel.__name__)
        return self.kernel[grid]


def test_linear_is_its_definition():
    pattern = block_pattern(32, 48)
    x, values, bias = torch.randn(5, 48), torch.randn(pattern.nnz), torch.randn(32)
    y = sm.masked_linear(x, values, pattern, bias, backend="triton")
    torch.testing.assert_close(y, F.linear(x, pattern.expand(values), bias), **TIGHT)
    tasks = torch.randn(3, pattern.nnz)
    y = sm.masked_linear(torch.stack([x] * 3), tasks, pattern, backend="triton")
    torch.testing.assert_close(y, torch.stack([x @ pattern.expand(v).T for v in tasks]), **TIGHT)


def test_vmap_of_a_gradient_launches_each_kernel_once_for_all_tasks(monkeypatch):
    pattern = block_pattern(16, 32, 3, 3)
    x, values = torch.randn(4, 2, 32, 4, 4), torch.randn(4, pattern.nnz)

    def loss(v, images, backend):
        return sm.masked_conv2d(images, v, pattern, padding=1, backend=backend).square().sum()

    launched = counted(monkeypatch)
    got = torch.func.vmap(torch.func.grad(loss), in_dims=(0, 0, None))(values, x, "triton")
    assert launched == ["gather_conv2d", "weight_grad_conv2d"]
    expected = torch.func.vmap(torch.func.grad(loss), in_dims=(0, 0, None))(values, x, "dense")
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_meta_gradient_of_modules_equals_that_of_dense():
    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(16, 32, 3, padding=1), nn.Tanh(), nn.Conv2d(32, 16, 3), nn.Flatten(), nn.Linear(64, 16)
        )

    masks = {"0.weight": (32, 16, 3, 3), "2.weight": (16, 32, 3, 3), "4.weight": (16, 64)}
    ticket = sm.Ticket.from_masks({name: block_pattern(*shape).mask() for name, shape in masks.items()}, (16, 16))
    x, gradients = torch.randn(2, 16, 4, 4), {}
    for backend in ("triton", "dense"):
        net = sm.sparsify(model(), ticket, backend=backend)
        params = dict(net.named_parameters())
        loss = torch.func.functional_call(net, params, (x,)).square().sum()
        inner = torch.autograd.grad(loss, list(params.values()), create_graph=True)
        new = {n: p - 0.01 * g for (n, p), g in zip(params.items(), inner, strict=True)}
        query = torch.func.functional_call(net, new, (x.flip(0) + 1,)).square().mean()
        gradients[backend] = torch.autograd.grad(query, list(params.values()))
    for got, expected in zip(gradients["triton"], gradients["dense"], strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_a_split_weight_gradient_is_the_same_bits_every_time():
    pattern = block_pattern(16, 16, 3, 3)
    conv = sm.ops.conv.Conv.make(pattern, 1, 1, 1, 1, "triton")
    g, x = torch.randn(2, 6, 16, 9, 9)
    assert triton._splits(6 * 81, pattern.nnz // 256, 64)[1] > 1
    first, second = (triton.masked_conv2d_weight_grad(g, x, conv) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("pixels, programs, block", [(1, 1, 64), (255, 1, 64), (10**6, 3, 64), (11025, 5000, 32)])
def test_splits_cover_the_pixels_without_an_empty_one(pixels, programs, block):
    split, splits = triton._splits(pixels, programs, block)
    assert split % block == 0 and split * (splits - 1) < pixels <= split * splits


def test_tables_are_built_once_for_a_pattern_and_geometry(monkeypatch):
    pattern = block_pattern(16, 16, 3, 3)
    conv = sm.ops.conv.Conv.make(pattern, 1, 1, 1, 1, "triton")
    triton.masked_conv2d(torch.randn(1, 16, 4, 4), torch.randn(pattern.nnz), None, conv)
    monkeypatch.setattr("sparsemeta.backends.triton_tables._taps", None)  # a second building would fail
    triton.masked_conv2d(torch.randn(2, 16, 7, 5), torch.randn(pattern.nnz), None, conv)


def test_output_has_its_channels_last_where_the_input_has():
    pattern = block_pattern(16, 16, 3, 3)
    x = torch.randn(2, 16, 4, 5).contiguous(memory_format=torch.channels_last)
    y = sm.masked_conv2d(x, torch.randn(pattern.nnz), pattern, backend="triton")
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert sm.masked_conv2d(x.contiguous(), torch.randn(pattern.nnz), pattern, backend="triton").is_contiguous()


@pytest.mark.parametrize(
    "pattern, groups, reason",
    [
        (sm.Pattern.from_mask(torch.ones(16, 16, 1, 1).bool()), 1, "blocks of 16x16, 32x32 or 64x64 channels, got 1x1"),
        (sm.Pattern.from_mask(torch.ones(32, 16, 1, 1).bool(), (32, 16)), 1, "got 32x16"),
        (sm.Pattern.from_mask(torch.ones(32, 16, 1, 1).bool(), (16, 16)), 2, "groups=1, got 2"),
    ],
)
def test_refuses_patterns_and_groups_with_the_reason(pattern, groups, reason):
    x = torch.randn(1, 16 * groups, 3, 3)
    with pytest.raises(RuntimeError, match=reason):
        sm.masked_conv2d(x, torch.randn(pattern.nnz), pattern, groups=groups, backend="triton")


def test_refuses_an_operation_of_which_it_has_no_kernel():
    with pytest.raises(RuntimeError, match="'triton' cannot run this: it has no masked_conv3d"):
        sm.backends.check_has("triton", "masked_conv3d")


def test_refuses_other_dtypes_and_is_not_chosen_unasked():
    pattern = block_pattern(16, 16, 1, 1)
    x, values = torch.randn(1, 16, 3, 3, dtype=torch.float64), torch.randn(pattern.nnz, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="float32, float16 or bfloat16, got torch.float64"):
        sm.masked_conv2d(x, values, pattern, backend="triton")
    assert sm.backends.select("auto", x.float()) != "triton"


def test_float32_products_follow_the_setting_for_cudnn():
    assert triton.allow_tf32()
    owner, name, strict = torch.backends.cudnn, "allow_tf32", False
    if hasattr(torch.backends.cudnn, "conv"):
        owner, name, strict = torch.backends.cudnn.conv, "fp32_precision", "ieee"
    before = getattr(owner, name)
    setattr(owner, name, strict)
    try:
        assert not triton.allow_tf32() and triton._arithmetic(torch.float32)["PRECISION"] == "ieee"
    finally:
        setattr(owner, name, before)


def test_tables_stay_for_launches_on_other_streams(monkeypatch):
    recorded = []
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda t, stream: recorded.append(stream))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "side")
    conv = sm.ops.conv.Conv.make(block_pattern(32, 16, 1, 1), 1, 0, 1, 1, "triton")
    table = triton_tables.forward_table(conv, torch.device("cpu"))
    assert not recorded
    assert replace(table, stream=7).on_stream().entries is table.entries and recorded == ["side"] * 2


def test_images_wider_than_32_bits_are_copied():
    wide = torch.empty_strided((1, 16, 2, 2), (1, 2**28, 2, 1), device="meta")
    assert triton._near(wide).stride() == (64, 4, 2, 1)
    assert triton._near(wide[:, :8]).stride() == (1, 2**28, 2, 1)
