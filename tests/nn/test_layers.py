"""SparseConv2d and SparseLinear: equal to the dense layer of the expanded weight, and modules as users expect."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from sparsemeta.nn import SparseConv2d, SparseLinear
from sparsemeta.nn.fused import fuse
from sparsemeta.pattern import Pattern

CONVS = {
    "plain": {},
    "stride": {"stride": 2, "padding": 1},
    "pairs": {"stride": (1, 2), "padding": (2, 0), "dilation": (1, 2)},
    "same": {"padding": "same", "dilation": 2},
    "valid": {"padding": "valid"},
    "groups": {"groups": 2, "padding": 1},
    "no bias": {"bias": False},
    "circular": {"padding": 2, "padding_mode": "circular"},
    "reflect": {"padding": (1, 2), "padding_mode": "reflect"},
    "replicate": {"padding": "same", "padding_mode": "replicate"},
}
convs = pytest.mark.parametrize("arguments", CONVS.values(), ids=CONVS)
backends = pytest.mark.parametrize("backend", ["auto", "dense", "cpu"])


def conv_pattern(groups=1) -> Pattern:
    return Pattern.from_mask(torch.rand(6, 4 // groups, 3, 3) < 0.4)


def linear_pattern() -> Pattern:
    return Pattern.from_mask(torch.rand(6, 4) < 0.4)


def masked(dense: nn.Module, pattern: Pattern) -> nn.Module:
    with torch.no_grad():
        dense.weight.mul_(pattern.mask())
    return dense


@convs
@backends
def test_conv_equals_nn_conv2d(arguments, backend):
    pattern = conv_pattern(arguments.get("groups", 1))
    dense = masked(nn.Conv2d(4, 6, 3, **arguments), pattern)
    sparse = SparseConv2d.from_dense(dense, pattern, backend)
    x, y = torch.randn(2, 4, 7, 8, requires_grad=True), torch.randn(2, 4, 7, 8, requires_grad=True)
    y.data.copy_(x.data)
    torch.testing.assert_close(sparse(x), dense(y))
    sparse(x).square().sum().backward()
    dense(y).square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    torch.testing.assert_close(sparse.values.grad, pattern.compress(dense.weight.grad))
    if sparse.bias is not None:
        torch.testing.assert_close(sparse.bias.grad, dense.bias.grad)
    torch.testing.assert_close(sparse(x[0]), dense(x[0]))  # without batch axis


@backends
@pytest.mark.parametrize("bias", [True, False])
def test_linear_equals_nn_linear(backend, bias):
    pattern = linear_pattern()
    dense = masked(nn.Linear(4, 6, bias), pattern)
    sparse = SparseLinear.from_dense(dense, pattern, backend)
    for shape in ((4,), (3, 4), (2, 3, 4)):
        x = torch.randn(shape)
        torch.testing.assert_close(sparse(x), dense(x))


@convs
def test_dense_layer_and_back(arguments):
    pattern = conv_pattern(arguments.get("groups", 1))
    dense = masked(nn.Conv2d(4, 6, 3, **arguments), pattern).eval()
    dense.weight.requires_grad_(False)
    back = SparseConv2d.from_dense(dense, pattern).to_dense()
    assert type(back) is nn.Conv2d and repr(back) == repr(dense) and not back.training
    assert torch.equal(back.weight, dense.weight) and not back.weight.requires_grad
    assert back.bias is None if dense.bias is None else torch.equal(back.bias, dense.bias) and back.bias.requires_grad
    assert back.weight.data_ptr() != dense.weight.data_ptr()


@convs
def test_conv_starts_as_nn_conv2d(arguments):
    pattern = conv_pattern(arguments.get("groups", 1))
    torch.manual_seed(3)
    dense, after = nn.Conv2d(4, 6, 3, **arguments), torch.rand(1)
    torch.manual_seed(3)
    sparse = SparseConv2d(pattern, **arguments)
    assert torch.equal(torch.rand(1), after)
    assert torch.equal(sparse.weight, masked(dense, pattern).weight)
    assert sparse.bias is None if dense.bias is None else torch.equal(sparse.bias, dense.bias)
    torch.manual_seed(3)
    before = sparse.values.clone()
    nn.init.zeros_(sparse.values)
    sparse.reset_parameters()
    assert torch.equal(sparse.values, before)


def test_linear_starts_as_nn_linear():
    pattern = linear_pattern()
    torch.manual_seed(3)
    dense = nn.Linear(4, 6, dtype=torch.float64)
    torch.manual_seed(3)
    sparse = SparseLinear(pattern, dtype=torch.float64)
    assert torch.equal(sparse.weight, masked(dense, pattern).weight) and torch.equal(sparse.bias, dense.bias)


def test_the_weight_is_read_only_and_differentiable():
    layer, scale = SparseConv2d(conv_pattern()), torch.randn(6, 4, 3, 3)
    (layer.weight * scale).sum().backward()
    assert torch.equal(layer.values.grad, layer.pattern.compress(scale))
    for value in (scale, nn.Parameter(scale)):
        with pytest.raises((AttributeError, KeyError), match="weight"):
            layer.weight = value


def test_parameters_and_buffers():
    pattern = conv_pattern()
    layer = SparseConv2d(pattern)
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {"values": (pattern.nnz,), "bias": (6,)}
    assert not list(layer.buffers())


def test_conversions():
    layer = SparseConv2d(conv_pattern())
    x = torch.randn(2, 4, 7, 7)
    assert layer.double().values.dtype == torch.float64 and layer(x.double()).dtype == torch.float64
    assert layer.float().to("meta").values.is_meta and layer(x.to("meta")).shape == (2, 6, 5, 5)
    assert not layer.eval().training and layer.train().training
    assert not any(p.requires_grad for p in layer.requires_grad_(False).parameters())


def test_meta_device_makes_no_data():
    layer = SparseConv2d(conv_pattern(), device="meta")
    assert layer.values.is_meta and layer.bias.is_meta and layer.weight.shape == (6, 4, 3, 3)
    assert SparseLinear.from_dense(nn.Linear(4, 6, device="meta"), linear_pattern()).values.is_meta


def test_deepcopy_shares_the_pattern_only():
    layer = SparseConv2d(conv_pattern(), padding=1)
    clone = copy.deepcopy(layer)
    assert clone.pattern is layer.pattern and torch.equal(clone.values, layer.values)
    with torch.no_grad():
        clone.values.zero_()
    assert layer.values.abs().sum() > 0


def test_repr_says_what_it_is():
    text = repr(SparseConv2d(Pattern.from_mask(torch.ones(6, 4, 3, 3) > 0, block=(2, 2)), padding=1, backend="dense"))
    assert all(part in text for part in ("in_channels=4", "padding=(1, 1)", "block=(2, 2, 1, 1)", "nnz=216", "dense"))


@backends
def test_functional_call_and_per_task_values(backend):
    model = nn.Sequential(SparseConv2d(conv_pattern(), padding=1, backend=backend), nn.Flatten(), nn.Linear(96, 3))
    x = torch.randn(5, 2, 4, 4, 4)
    tasks = {name: p.detach() + 0.1 * torch.randn(5, *p.shape) for name, p in model.named_parameters()}

    def loss(parameters, x):
        return functional_call(model, parameters, (x,)).square().mean()

    gradients = vmap(grad(loss))(tasks, x)
    for task in range(5):
        alone = grad(loss)({name: p[task] for name, p in tasks.items()}, x[task])
        for name, gradient in alone.items():
            torch.testing.assert_close(gradients[name][task], gradient)


@backends
@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_per_task_values_without_vmap(backend, mode):
    layer = SparseConv2d(conv_pattern(), padding=1, padding_mode=mode, backend=backend)
    x, values = torch.randn(3, 2, 4, 5, 5), torch.randn(3, layer.pattern.nnz)
    y = functional_call(layer, {"values": values}, (x,))
    for task in range(3):
        torch.testing.assert_close(y[task], functional_call(layer, {"values": values[task]}, (x[task],)))


@pytest.mark.parametrize("backend", ["dense", "cpu"])
def test_compiles_as_one_graph(backend):
    conv, linear = SparseConv2d(conv_pattern(), backend=backend), SparseLinear(linear_pattern(), backend=backend)
    model = nn.Sequential(conv, linear)
    x = torch.randn(2, 4, 6, 6)
    y = torch.compile(model, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(y, model(x))
    expected = torch.autograd.grad(model(x).square().sum(), model.parameters())
    torch.testing.assert_close(torch.autograd.grad(y.square().sum(), model.parameters()), expected)


@pytest.mark.parametrize("optimizer", [
    lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01), lambda p: torch.optim.AdamW(p, lr=0.1),
], ids=["SGD", "AdamW"])
def test_pruned_weights_stay_pruned(optimizer):
    layer = SparseConv2d(conv_pattern(), padding=1)
    before, step = layer.weight.detach(), optimizer(layer.parameters())
    for _ in range(5):
        step.zero_grad()
        layer(torch.randn(2, 4, 5, 5)).square().sum().backward()
        step.step()
    mask = layer.pattern.mask()
    assert not layer.weight[~mask].any() and (layer.weight != before)[mask].all()


BAD = {
    "rank": (lambda: SparseConv2d(linear_pattern()), ValueError, "with 4 axes, got Pattern"),
    "linear rank": (lambda: SparseLinear(conv_pattern()), ValueError, "with 2 axes, got Pattern"),
    "mask": (lambda: SparseLinear(torch.ones(2, 2) > 0), ValueError, "Pattern.from_mask"),
    "groups": (lambda: SparseConv2d(conv_pattern(), groups=4), ValueError, "out_channels must be divisible by groups"),
    "padding mode": (lambda: SparseConv2d(conv_pattern(), padding_mode="edge"), ValueError, "padding_mode"),
    "backend": (lambda: SparseConv2d(conv_pattern(), backend="gpu"), ValueError, "one of 'auto', .*got 'gpu'"),
    "kind": (lambda: SparseConv2d.from_dense(nn.Linear(4, 6), conv_pattern()), TypeError, "a Conv2d, got Linear"),
    "shape": (lambda: SparseConv2d.from_dense(nn.Conv2d(4, 5, 3), conv_pattern()), ValueError, r"got \(5, 4, 3, 3\)"),
}


@pytest.mark.parametrize(("make", "error", "message"), BAD.values(), ids=BAD)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_backend_that_cannot_run_gives_its_reasons(monkeypatch):
    monkeypatch.setattr("sparsemeta.backends.cpu.missing", lambda: ["no compiler was there"])
    with pytest.raises(RuntimeError, match="'cpu' cannot run here: no compiler was there"):
        SparseLinear(linear_pattern(), backend="cpu")


def network_and_images(backend: str) -> tuple[nn.Module, torch.Tensor]:
    norm = nn.Sequential(nn.BatchNorm2d(6), nn.ReLU())
    model = nn.Sequential(SparseConv2d(conv_pattern(), backend=backend), norm, SparseLinear(linear_pattern()))
    fuse(model)
    return model.eval(), torch.randn(2, 4, 8, 6)


@pytest.mark.parametrize("backend", ["auto", "dense"])
def test_a_program_that_is_loaded_elsewhere_is_plain_pytorch(backend, tmp_path):
    """The number by which an operator finds its pattern means another one in another process, or none."""
    model, x = network_and_images(backend)
    program, trace = torch.export.export(model, (x,)), torch.jit.trace(model, (x,))
    assert "sparsemeta" not in str(program.graph)
    torch.jit.save(trace, tmp_path / "trace")
    for loaded in (program.module(), torch.jit.load(tmp_path / "trace")):
        torch.testing.assert_close(loaded(x), model(x))


@pytest.mark.extension
def test_a_named_backend_says_that_it_cannot_leave_the_process():
    model, x = network_and_images("cpu")
    with pytest.raises(RuntimeError, match="'cpu' cannot run this: torch.export makes a program that outlives"):
        torch.export.export(model, (x,))
    with pytest.raises(RuntimeError, match="torch.jit.trace makes a program that outlives"):
        torch.jit.trace(model, (x,))


def test_hooks_see_one_call_of_an_image_without_batch():
    layer, seen = SparseConv2d(conv_pattern()), []
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    assert seen == [layer(torch.randn(4, 5, 5)).shape]
