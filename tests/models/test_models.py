"""Conv4 and ResNet12: shapes, names, and life under torch.func and torch.compile."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from sparsemeta.models import Conv4, ResNet12

SMALL = {"Conv4": lambda **k: Conv4(hidden=4, **k), "ResNet12": lambda **k: ResNet12(widths=(4, 5, 6, 7), **k)}
both = pytest.mark.parametrize("build", SMALL.values(), ids=SMALL)


@both
@pytest.mark.parametrize("image_size", [16, 28, 32, 84, 105, (28, 41)])
def test_logits_have_one_column_per_way(build, image_size):
    model = build(ways=3, in_channels=2, image_size=image_size)
    height, width = image_size if isinstance(image_size, tuple) else (image_size, image_size)
    logits = model(torch.rand(5, 2, height, width))
    assert logits.shape == (5, 3)
    assert logits.isfinite().all()


@pytest.mark.parametrize(("image_size", "features"), [(28, 64), (32, 256), (84, 1600), (105, 2304), ((28, 41), 128)])
def test_conv4_head_takes_what_four_poolings_leave(image_size, features):
    assert Conv4(image_size=image_size).head.in_features == features


def test_parameter_names():
    conv4 = list(dict(Conv4().named_parameters()))
    assert conv4[:4] == [f"features.0.{name}" for name in ("conv.weight", "conv.bias", "norm.weight", "norm.bias")]
    assert conv4[-2:] == ["head.weight", "head.bias"] and len(conv4) == 4 * 4 + 2
    resnet = dict(ResNet12().named_parameters())
    parts = ("conv1", "conv2", "conv3", "shortcut")
    block = [f"blocks.0.{part}.{name}" for part in parts for name in ("conv.weight", "norm.weight", "norm.bias")]
    assert list(resnet)[:12] == block and len(resnet) == 4 * 12 + 2
    assert resnet["blocks.3.conv1.conv.weight"].shape == (640, 320, 3, 3)


def test_resnet12_equals_its_definition():
    model = ResNet12(widths=(3, 4), image_size=8).double()
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64)

    def branch(part, x):
        norm, kernel = part.norm, part.conv.weight
        y = nn.functional.conv2d(x, kernel, padding=kernel.shape[-1] // 2)
        y = y - y.mean((0, 2, 3), keepdim=True)
        return y / (y.square().mean((0, 2, 3), keepdim=True) + norm.eps).sqrt()

    def act(x):
        return torch.where(x > 0, x, 0.1 * x)

    y = x
    for block in model.blocks:
        deep = branch(block.conv3, act(branch(block.conv2, act(branch(block.conv1, y)))))
        y = nn.functional.max_pool2d(act(deep + branch(block.shortcut, y)), 2)
    torch.testing.assert_close(model(x), y.mean((2, 3)) @ model.head.weight.T + model.head.bias)


@both
def test_batch_statistics_unless_told(build):
    x = torch.rand(4, 3, 16, 16)
    model = build(image_size=16)
    assert not list(model.buffers())
    torch.testing.assert_close(model.train()(x), model.eval()(x))
    tracking = build(image_size=16, track_running_stats=True)
    assert (tracking.train()(x) - tracking.eval()(x)).abs().max() > 1e-3


@both
def test_functional_call_with_a_gradient_per_task(build):
    model = build(image_size=16)
    weights = {name: p.detach() for name, p in model.named_parameters()}
    x, y = torch.rand(2, 6, 3, 16, 16), torch.randint(5, (2, 6))

    def loss(weights, x, y):
        return nn.functional.cross_entropy(functional_call(model, weights, x), y)

    together = vmap(grad(loss), in_dims=(None, 0, 0))(weights, x, y)
    alone = grad(loss)(weights, x[1], y[1])
    for name, gradient in alone.items():
        torch.testing.assert_close(together[name][1], gradient, rtol=1e-3, atol=1e-5)  # another order of the sums


@both
def test_compiles_as_one_graph(build):
    model, x = build(image_size=16), torch.rand(4, 3, 16, 16)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")  # no compiler needed on the test machine
    torch.testing.assert_close(compiled(x), model(x))


@both
@pytest.mark.parametrize("image_size", [15, 0, (16, 8), (28,), (28, 28, 28), 28.0, None])
def test_too_small_or_odd_image_size(build, image_size):
    with pytest.raises(ValueError, match=r"image_size must be an int or \(height, width\), each at least 16"):
        build(image_size=image_size)


@both
@pytest.mark.parametrize("shape", [(2, 1, 28, 28), (2, 3, 32, 28), (3, 28, 28), (1, 2, 3, 28, 28)])
def test_images_of_another_shape(build, shape):
    with pytest.raises(ValueError, match=r"expected images of shape \[N, 3, 28, 28\]; got .*in_channels"):
        build(image_size=28)(torch.rand(shape))
