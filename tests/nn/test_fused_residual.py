"""sparsify lets a residual block run its end in one pass, to the same numbers, and densify undoes it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

import sparsemeta as sm
from sparsemeta.nn import Residual, fused
from sparsemeta.nn.fused import FusedResidual, FusedSequential, fuse, unfuse
from sparsemeta.ops.norm_act_pool import Norm

IMAGES = torch.rand(10, 3, 20, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.arange(5).repeat(2)


def resnet12(track_running_stats=False):
    torch.manual_seed(0)
    model = sm.models.ResNet12(5, 3, (4, 6, 8), 20, track_running_stats)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            if track_running_stats:
                nn.init.normal_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.5, 2)
    return model.double()


def sparse_and_dense(model):
    sparse = sm.sparsify(model, sm.Ticket.magnitude(model, 0.5, exclude="head"))
    return sparse, sm.densify(sparse)


@pytest.fixture
def residuals(monkeypatch):
    """What kinds of residual the fused calls get, one after another."""
    seen, plain = [], fused.norm_act_pool

    def spy(*args, **more):
        seen.append(type(more["residual"]))
        return plain(*args, **more)

    monkeypatch.setattr(fused, "norm_act_pool", spy)
    return seen


def test_resnet12_equals_its_dense_self(residuals):
    sparse, dense = sparse_and_dense(resnet12())
    torch.testing.assert_close(sparse(IMAGES), dense(IMAGES))
    nothing = type(None)
    assert residuals == [nothing, nothing, Norm] * 3
    assert all(type(block) is Residual for block in dense.blocks) and type(dense.blocks[0].conv1) is nn.Sequential


@pytest.mark.parametrize("first_order", [False, True], ids=["second", "first"])
def test_meta_gradient_of_resnet12_equals_that_of_the_definition(first_order):
    """On the expanded weights, whose pruned entries no inner step may move, as it would those of the dense model."""
    model = resnet12()
    ticket = sm.Ticket.magnitude(model, 0.5, exclude="head")
    definition = sm.sparsify(model, ticket, "dense")
    unfuse(definition)

    def meta_gradient(model):
        clone = sm.meta.MAML(model, lr=0.05, first_order=first_order).clone()
        for _ in range(2):
            clone.adapt(nn.functional.cross_entropy(clone(IMAGES), LABELS))
        loss = nn.functional.cross_entropy(clone(IMAGES.flip(0)), LABELS)
        return torch.autograd.grad(loss, list(model.parameters()))

    for got, wanted in zip(*map(meta_gradient, (sm.sparsify(model, ticket), definition)), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("mode", ["transductive", "inductive", "frozen", "per_step"])
def test_batch_norm_modes(mode):
    sparse, _ = sparse_and_dense(resnet12(track_running_stats=True))
    unfused = copy.deepcopy(sparse)
    unfuse(unfused)

    def loss_and_gradient(model):
        clone = sm.meta.MAML(model, lr=0.05, bn_mode=mode).clone()
        clone.adapt(nn.functional.cross_entropy(clone(IMAGES), LABELS))
        loss = nn.functional.cross_entropy(clone(IMAGES.flip(0)), LABELS)
        return loss, *torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, materialize_grads=True)

    for a, b in zip(loss_and_gradient(sparse), loss_and_gradient(unfused), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_running_statistics_are_updated_in_training_and_read_in_eval(residuals):
    sparse, dense = sparse_and_dense(resnet12(track_running_stats=True))
    torch.testing.assert_close(sparse.train()(IMAGES), dense.train()(IMAGES))
    assert not residuals
    assert len(list(dense.buffers()))
    for a, b in zip(sparse.buffers(), dense.buffers(), strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(sparse.eval()(IMAGES[:1]), dense.eval()(IMAGES[:1]))
    assert residuals.count(Norm) == 3


def test_names_and_state_stay():
    model = resnet12()
    sparse, dense = sparse_and_dense(model)
    assert all(type(block) is FusedResidual and type(block.conv1) is FusedSequential for block in sparse.blocks)
    assert [name for name, _ in sparse.named_modules()] == [name for name, _ in model.named_modules()]
    assert list(dense.state_dict()) == list(model.state_dict())
    assert "blocks.0.conv1.conv.weight" in model.state_dict() and "blocks.2.shortcut.norm.bias" in model.state_dict()


def test_a_copy_and_functional_call_stay_fused(residuals):
    sparse, dense = sparse_and_dense(resnet12())
    got, wanted = (
        functional_call(model, {name: 0.5 * p for name, p in model.named_parameters()}, (IMAGES,))
        for model in (copy.deepcopy(sparse), dense)
    )
    torch.testing.assert_close(got, wanted)
    assert residuals.count(Norm) == 3


@pytest.mark.parametrize("where", ["conv3", "conv3.norm", "act", "pool", "shortcut", "shortcut.norm"])
def test_hooks_are_still_called(where):
    sparse, dense = sparse_and_dense(resnet12())
    heard = []
    sparse.blocks[0].get_submodule(where).register_forward_hook(lambda _, inputs, output: heard.append(output.shape))
    torch.testing.assert_close(sparse(IMAGES), dense(IMAGES))
    assert len(heard) == 1


def test_other_eps_of_the_shortcut_is_respected(residuals):
    model = resnet12()
    model.blocks[0].shortcut.norm.eps = 0.1
    sparse, dense = sparse_and_dense(model)
    torch.testing.assert_close(sparse(IMAGES), dense(IMAGES))
    assert residuals.count(Norm) == 2 and residuals.count(torch.Tensor) == 1


@pytest.mark.parametrize("end", [nn.Sigmoid(), nn.AvgPool2d(2), nn.Dropout(0.0)], ids=str)
def test_what_cannot_be_fused_runs_as_written(end):
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    act, pool = (end, nn.MaxPool2d(2)) if isinstance(end, nn.Sigmoid) else (nn.ReLU(), end)
    block = Residual(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), norm), shortcut=nn.Identity(), act=act, pool=pool)
    x, plain = torch.randn(2, 4, 6, 6), copy.deepcopy(block)
    fuse(block)
    torch.testing.assert_close(block(x), plain(x))


@pytest.mark.parametrize("kind", [sm.models.ResNetCifar, sm.models.ResNetImageNet])
def test_identity_shortcuts(kind, residuals):
    torch.manual_seed(0)
    widths = (4, 4, 8) if kind is sm.models.ResNetCifar else (4, 4, 4, 8)
    model = kind(20 if kind is sm.models.ResNetCifar else 18, 5, 3, widths, 32).double()
    sparse, dense = sparse_and_dense(model)
    x = torch.rand(4, 3, 32, 32, dtype=torch.float64)
    losses = [sm.meta.MAML(m).clone()(x).square().sum() for m in (sparse, dense)]
    norms = [[p for n, p in m.named_parameters() if "norm" in n] for m in (sparse, dense)]
    got, wanted = (torch.autograd.grad(loss, own) for loss, own in zip(losses, norms, strict=True))
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)
    assert torch.Tensor in residuals and Norm in residuals
