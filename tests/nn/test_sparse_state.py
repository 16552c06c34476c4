"""State dicts of sparse layers: self-contained, in every file format, and adopted by layers of other patterns."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import nn
from torch.func import functional_call

from sparsemeta.nn import SparseConv2d, SparseLinear
from sparsemeta.pattern import Pattern


def network(kept: float = 0.4, block=(1, 1)) -> nn.Sequential:
    conv = Pattern.from_mask((torch.rand(3, 2, 3, 3) < kept).repeat_interleave(2, 0).repeat_interleave(2, 1), block)
    head = Pattern.from_mask((torch.rand(4, 48) < kept).repeat_interleave(2, 0).repeat_interleave(2, 1), block)
    return nn.Sequential(SparseConv2d(conv, padding=1), nn.BatchNorm2d(6), nn.Flatten(), SparseLinear(head, bias=False))


def images() -> torch.Tensor:
    return torch.randn(2, 4, 4, 4)


def assert_same(model: nn.Module, other: nn.Module) -> None:
    assert model[0].pattern == other[0].pattern and model[3].pattern == other[3].pattern
    state = other.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    x = images()
    assert torch.equal(model.eval()(x), other.eval()(x))


def by_torch(state, _):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def by_safetensors(state, path):
    save_file(state, path)
    return load_file(path)


FORMATS = {"as it is": lambda state, _: state, "torch": by_torch, "safetensors": by_safetensors}


@pytest.mark.parametrize("through", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("assign", [False, True])
def test_round_trip_into_another_pattern(tmp_path, through, assign):
    source, target = network(0.3, (2, 2)), network(0.7)
    assert source[0].pattern.nnz != target[0].pattern.nnz
    state = through(source.state_dict(), tmp_path / "state")
    keys = set(state)
    assert not any(target.load_state_dict(state, assign=assign))
    assert_same(source, target)
    assert set(state) == keys


def test_whole_models_by_safetensors(tmp_path):
    source, target = network(0.3), network(0.7)
    source[0].register_module("again", SparseLinear(source[3].pattern))
    target[0].register_module("again", SparseLinear(target[3].pattern))
    save_model(source, str(tmp_path / "model"))
    load_model(target, str(tmp_path / "model"))
    assert_same(source, target)
    assert target[0].again.pattern == source[3].pattern


def test_what_the_state_holds():
    layer = SparseConv2d(Pattern.from_mask(torch.ones(4, 2, 3, 3) > 0, block=(2, 2)))
    state = layer.state_dict()
    assert list(state) == ["values", "bias", "pattern_bits", "pattern_sizes"]
    assert state["pattern_sizes"].tolist() == [[4, 2, 3, 3], [2, 2, 1, 1]]
    assert state["pattern_bits"].dtype == torch.uint8 and state["pattern_bits"].shape == (3,)  # 18 blocks


def test_values_stay_the_parameter_an_optimizer_knows():
    source, target = network(0.3), network(0.7)
    values = target[0].values
    optimizer = torch.optim.SGD(target.parameters(), lr=0.1)
    loss = target(images()).square().sum()
    loss.backward()  # and `loss` stays alive, and with it a graph that remembers the old size
    target.load_state_dict(source.state_dict())
    assert target[0].values is values and values.shape == (source[0].pattern.nnz,) and values.grad is None
    before = values.detach().clone()
    target(images()).square().sum().backward()
    optimizer.step()
    assert (values != before).all() and loss.isfinite()


def test_same_number_of_weights_in_other_places():
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[0] = True
    source, target = SparseLinear(Pattern.from_mask(mask)), SparseLinear(Pattern.from_mask(mask.T))
    target.load_state_dict(source.state_dict())
    assert torch.equal(target.weight, source.weight)


def test_an_equal_pattern_stays_with_what_was_derived_from_it():
    model = network()
    before = model[0].pattern
    model.load_state_dict({name: tensor.clone() for name, tensor in model.state_dict().items()})
    assert model[0].pattern is before


def test_dtype_and_meta():
    source = network()
    target = network(0.7).double()
    target.load_state_dict(source.state_dict())
    assert target[0].values.dtype == torch.float64 and torch.equal(target[0].values.float(), source[0].values)
    empty = network(0.7).to("meta")
    empty.load_state_dict(source.state_dict(), assign=True)
    assert_same(source, empty)


def test_functional_call_takes_a_whole_state_dict():
    source = network().eval()
    x = images()
    other = copy.deepcopy(source)
    with torch.no_grad():
        other[0].values.zero_()
    assert torch.equal(functional_call(other, source.state_dict(), (x,)), source(x))
    assert torch.equal(other[0].values, torch.zeros_like(other[0].values))


def changed(**entries):
    def change(state):
        return {name: tensor for name, tensor in (state | entries).items() if tensor is not None}
    return change


WRONG = {
    "shape": (
        changed(pattern_sizes=torch.tensor([[2, 6], [1, 1]])),
        r"pattern: expected a pattern of this layer's weight, \(3, 4\), got one of \(2, 6\)",
    ),
    "count": (changed(values=torch.ones(5)), r"expected its 3 values beside a pattern, got values of shape \(5,\)"),
    "no values": (changed(values=None), "Missing key.*values"),
    "bits": (changed(pattern_bits=torch.zeros(3, dtype=torch.uint8)), r"expected uint8 bits of shape \(2,\)"),
    "float bits": (changed(pattern_bits=torch.zeros(2)), "expected uint8 bits"),
    "float sizes": (changed(pattern_sizes=torch.ones(2, 2)), "expected pattern_sizes of int64"),
    "huge": (changed(pattern_sizes=torch.full((2, 2), 2**40)), "expected integer sizes of at most"),
    "no pattern": (changed(pattern_bits=None, pattern_sizes=None), "Missing key.*pattern_bits"),
    "half a pattern": (changed(pattern_sizes=None), "Missing key.*pattern_sizes"),
    "dense": (lambda state: {"weight": torch.ones(3, 4), "bias": torch.ones(3)}, "Missing key.*values"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_wrong_state(change, message):
    layer = SparseLinear(Pattern.from_mask(torch.eye(3, 4) > 0))
    values, pattern = layer.values.detach().clone(), layer.pattern
    with pytest.raises(RuntimeError, match=message):
        layer.load_state_dict(change(SparseLinear(pattern).state_dict()))
    assert layer.pattern is pattern and layer.values.shape == values.shape


def test_not_strict_keeps_the_pattern_that_is_not_given():
    layer = SparseLinear(Pattern.from_mask(torch.eye(3, 4) > 0))
    missing = layer.load_state_dict({"values": torch.ones(3)}, strict=False).missing_keys
    assert set(missing) == {"bias", "pattern_bits", "pattern_sizes"} and layer.weight.sum() == 3


def test_a_shared_layer_without_its_second_copy_of_the_values(tmp_path):
    """`save_model` writes a shared tensor once, under one of its names."""
    def tied(kept):
        layer = SparseLinear(Pattern.from_mask(torch.rand(4, 4) < kept))
        return nn.Sequential(layer, nn.ReLU(), layer)

    source, target = tied(0.3), tied(0.7)
    save_model(source, tmp_path / "model")
    load_model(target, tmp_path / "model")
    x = torch.randn(2, 4)
    assert target[2] is target[0] and torch.equal(target(x), source(x))
