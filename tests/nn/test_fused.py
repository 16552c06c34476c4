"""sparsify lets nn.Sequential run batch norm, activation and pooling in one pass, to the same numbers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import sparsemeta as sm
from sparsemeta.nn.fused import FusedSequential, fuse, fusible, unfuse


def block(norm=None, act=None, pool=None):
    layers = [nn.Conv2d(2, 4, 3, padding=1), norm or nn.BatchNorm2d(4, track_running_stats=False), act or nn.ReLU()]
    return nn.Sequential(*layers, *([pool] if pool else []))


def calls(monkeypatch):
    """Counts the fused calls from here on."""
    from sparsemeta.nn import fused

    seen = []
    plain = fused.norm_act_pool
    monkeypatch.setattr(fused, "norm_act_pool", lambda *a, **k: seen.append(a[5]) or plain(*a, **k))
    return seen


def stored():
    norm = nn.BatchNorm2d(4)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return norm.eval()


@pytest.mark.parametrize("norm", [None, stored()], ids=["batch", "running"])
@pytest.mark.parametrize(("act", "pool"), [(nn.ReLU(), nn.MaxPool2d(2)), (nn.LeakyReLU(0.1), None), (nn.ReLU(), None)])
def test_same_numbers(act, pool, norm, monkeypatch):
    torch.manual_seed(0)
    plain = block(norm, act, pool).double()
    fused = copy.deepcopy(plain)
    fuse(fused)
    seen, x = calls(monkeypatch), torch.randn(3, 2, 7, 8, dtype=torch.float64)
    grads = [torch.autograd.grad((m(x) ** 2).sum(), list(m.parameters())) for m in (plain, fused)]
    assert seen == [2 if pool else 1]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)
    assert [n for n, _ in plain.named_modules()] == [n for n, _ in fused.named_modules()]


@pytest.mark.parametrize(
    "model",
    [
        block(norm=nn.BatchNorm2d(4)),  # updates running statistics
        block(norm=nn.BatchNorm2d(4, track_running_stats=False, affine=False)),
    ],
    ids=["training", "not affine"],
)
def test_what_cannot_be_fused_runs_as_before(model, monkeypatch):
    expected, plain = copy.deepcopy(model), torch.randn(3, 2, 7, 8)
    fuse(model)
    seen = calls(monkeypatch)
    torch.testing.assert_close(model(plain), expected(plain))
    assert seen == []
    for a, b in zip(model.buffers(), expected.buffers(), strict=True):
        torch.testing.assert_close(a, b)


def test_hooks_are_still_called(monkeypatch):
    model = block(pool=nn.MaxPool2d(2))
    fuse(model)
    heard = []
    model[1].register_forward_hook(lambda *_: heard.append("norm"))
    seen = calls(monkeypatch)
    model(torch.randn(3, 2, 7, 8))
    assert heard == ["norm"] and seen == []


@pytest.mark.parametrize(
    "rest", [[], [nn.MaxPool2d(2)], [nn.Sigmoid()], [nn.LeakyReLU(-0.1), nn.MaxPool2d(2)]], ids=str
)
def test_without_an_activation_that_pooling_commutes_with(rest, monkeypatch):
    plain = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), *rest).double()
    fused = copy.deepcopy(plain)
    fuse(fused)
    seen, x = calls(monkeypatch), torch.randn(3, 2, 7, 8, dtype=torch.float64)
    torch.testing.assert_close(fused(x), plain(x))
    assert seen == [2 if len(rest) == 1 and isinstance(rest[0], nn.MaxPool2d) else 1]


@pytest.mark.parametrize("pool", [nn.MaxPool2d(3), nn.MaxPool2d(2, stride=1), nn.MaxPool2d(2, ceil_mode=True)])
def test_other_poolings_stay_themselves(pool):
    assert fusible(list(block(pool=pool))[1:]) == 2


def test_sparsify_fuses_and_densify_restores():
    model = sm.models.Conv4(in_channels=1, hidden=8, image_size=28)
    sparse = sm.sparsify(model, sm.Ticket.magnitude(model, 0.5, exclude="head"))
    assert all(type(b) is FusedSequential for b in sparse.features)
    assert [n for n, _ in sm.densify(sparse).named_modules()] == [n for n, _ in model.named_modules()]
    assert not any(isinstance(m, FusedSequential) for m in sm.densify(sparse).modules())
    unfuse(sparse)
    assert not any(isinstance(m, FusedSequential) for m in sparse.modules())


@pytest.mark.parametrize("mode", ["transductive", "inductive"])
def test_meta_gradient_equals_the_unfused_one(mode):
    torch.manual_seed(0)
    model = sm.models.Conv4(in_channels=1, hidden=4, image_size=16).double()
    sparse = sm.sparsify(model, sm.Ticket.magnitude(model, 0.5, exclude="head"))
    unfused = copy.deepcopy(sparse)
    unfuse(unfused)
    x, y = torch.rand(10, 1, 16, 16, dtype=torch.float64), torch.arange(5).repeat(2)

    def meta_gradient(net):
        clone = sm.meta.MAML(net, lr=0.1, bn_mode=mode).clone()
        for _ in range(3):
            clone.adapt(nn.functional.cross_entropy(clone(x), y))
        return torch.autograd.grad(nn.functional.cross_entropy(clone(x.flip(0)), y.flip(0)), list(net.parameters()))

    for a, b in zip(meta_gradient(sparse), meta_gradient(unfused), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
