"""Families of depths: ResNetCifar, ResNetImageNet, VGG and ConvN."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from sparsemeta.models import VGG, Conv4, ConvN, ResNetCifar, ResNetImageNet
from sparsemeta.ticket_layers import prunable


@pytest.mark.parametrize("depth", [8, 20, 32])
def test_cifar_depth_counts_layers_with_weights(depth):
    model = ResNetCifar(depth, classes=7, widths=(2, 3, 4), image_size=(8, 12))
    layers = [name for name in prunable(model) if "shortcut" not in name]
    assert len(layers) == depth
    assert model(torch.rand(2, 3, 8, 12)).shape == (2, 7)


@pytest.mark.parametrize(("depth", "blocks"), [(18, [2, 2, 2, 2]), (26, [3, 3, 3, 3]), (34, [3, 4, 6, 3])])
def test_imagenet_depth_counts_layers_with_weights(depth, blocks):
    model = ResNetImageNet(depth, classes=7, widths=(2, 3, 4, 5), image_size=32)
    assert [len(stage) for stage in model.stages] == blocks
    assert len([name for name in prunable(model) if "shortcut" not in name]) == depth
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 7)


def test_resnet_18_and_20_have_their_published_sizes():
    assert sum(p.numel() for p in ResNetImageNet(18).parameters()) == 11_689_512
    projections = 32 * 16 + 2 * 32 + 64 * 32 + 2 * 64
    assert sum(p.numel() for p in ResNetCifar(20).parameters()) == 269_722 + projections


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_vgg(depth):
    model = VGG(depth, classes=7, widths=(2, 3, 4, 5, 5))
    assert len([m for m in model.modules() if isinstance(m, nn.Conv2d)]) == depth - 3  # one linear layer for three
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 7)


def test_conv_n_of_four_blocks_is_conv4():
    torch.manual_seed(3)
    ours = ConvN(4, in_channels=1, hidden=4, image_size=28)
    torch.manual_seed(3)
    theirs = Conv4(in_channels=1, hidden=4, image_size=28)
    x = torch.rand(3, 1, 28, 28)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)


def test_conv_n_deeper_keeps_the_head():
    assert ConvN(6, image_size=32).head.in_features == Conv4(image_size=32).head.in_features
    assert ConvN(6, hidden=4, image_size=32)(torch.rand(2, 3, 32, 32)).shape == (2, 5)


def test_convolutions_start_as_he_et_al_say():
    weight = ResNetCifar(8, widths=(16, 32, 64)).stages[2][0].conv2.conv.weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.02)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: ResNetCifar(21), "6D \\+ 2"), (lambda: ResNetCifar(20, widths=(4, 4)), "three stages"),
        (lambda: ResNetImageNet(50), "10, 18, 26, 34"), (lambda: ResNetImageNet(18, widths=(4,)), "four stages"),
        (lambda: VGG(12), "11, 13, 16, 19"), (lambda: VGG(11, widths=(4,)), "five stages"),
        (lambda: ConvN(0), "at least 1"), (lambda: VGG(11, image_size=16), "image_size must be"),
    ],
)  # fmt: skip  a table
def test_errors(build, words):
    with pytest.raises(ValueError, match=words):
        build()
