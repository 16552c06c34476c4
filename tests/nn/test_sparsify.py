"""sparsify and densify: the same function and training as a masked dense model, and nothing else changed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from sparsemeta.nn import SparseConv2d, SparseLinear, densify, sparsify, ticket_of
from sparsemeta.ticket import Ticket, TicketError

BLOCKS = {"unstructured": (1, 1), "blocks": (2, 2)}
blocks = pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
backends = pytest.mark.parametrize("backend", ["dense", "cpu"])
places = pytest.mark.parametrize("inplace", [False, True], ids=["copy", "inplace"])


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2, bias=False),
        nn.Flatten(), nn.Linear(6 * 3 * 3, 4),
    )


def masked(model: nn.Module, ticket: Ticket) -> nn.Module:
    """A dense copy with zeros where pruned."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for name, mask in ticket.masks().items():
            model.get_parameter(name).mul_(mask)
    return model


def images(dtype=torch.float32) -> torch.Tensor:
    return torch.randn(3, 2, 8, 8, dtype=dtype)


def state_of(model: nn.Module) -> dict:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_equal_states(state: dict, other: dict) -> None:
    assert state.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in state.items())


@blocks
@backends
@places
def test_outputs_and_gradients_are_those_of_the_masked_model(block, backend, inplace):
    model = network()
    ticket = Ticket.magnitude(model, 0.6, block=block)
    dense = masked(model, ticket)
    sparse = sparsify(model, ticket, backend, inplace)
    x, y = images().requires_grad_(), torch.zeros(3, 2, 8, 8, requires_grad=True)
    y.data.copy_(x.data)
    torch.testing.assert_close(sparse(x), dense(y))
    sparse(x).square().sum().backward()
    dense(y).square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    gradients = {name: p.grad for name, p in sparse.named_parameters()}
    for name, p in dense.named_parameters():
        expected = ticket[name].compress(p.grad) if name in ticket else p.grad
        torch.testing.assert_close(gradients[name.replace("weight", "values") if name in ticket else name], expected)


@blocks
@backends
def test_training_is_that_of_the_masked_model(block, backend):
    """Momentum and weight decay on the kept weights as on the dense ones; nothing brings a pruned one back."""
    model = network().double()
    ticket = Ticket.magnitude(model, 0.6, block=block)
    dense, sparse = masked(model, ticket), sparsify(model, ticket, backend)
    steps = [torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1) for m in (dense, sparse)]
    for _ in range(5):
        x = images(torch.float64)
        for m, step in zip((dense, sparse), steps, strict=True):
            step.zero_grad()
            m(x).square().mean().backward()
            if m is dense:
                for name, mask in ticket.masks().items():
                    dense.get_parameter(name).grad.mul_(mask)
            step.step()
    torch.testing.assert_close(state_of(densify(sparse)), state_of(dense))
    assert (dense[0].weight != masked(model, ticket)[0].weight).any()


@pytest.mark.parametrize("train", [True, False])
def test_a_transformer_layer_that_looks_at_its_weights(train):
    """PyTorch's encoder layer reads `linear1.weight` for its fast path, which takes the dense weight."""
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).train(train)
    ticket = Ticket.magnitude(model, 0.5, exclude=["self_attn"])
    sparse, dense, x = sparsify(model, ticket), masked(model, ticket), torch.randn(2, 5, 8)
    torch.testing.assert_close(sparse(x), dense(x))
    with torch.no_grad():
        torch.testing.assert_close(sparse(x), dense(x))


@blocks
@places
def test_densify_is_the_inverse(block, inplace):
    model = network().eval()
    model[3].weight.requires_grad_(False)
    model[5].bias.requires_grad_(False)
    ticket = Ticket.magnitude(model, 0.6, block=block)
    expected, text = masked(model, ticket), repr(model)
    sparse = sparsify(model, ticket, inplace=inplace)
    assert ticket_of(sparse) == ticket
    back = densify(sparse, inplace=inplace)
    assert_equal_states(state_of(back), state_of(expected))
    assert repr(back) == text and not any(module.training for module in back.modules())
    for name, p in back.named_parameters():
        assert p.requires_grad == expected.get_parameter(name).requires_grad
    assert (sparse is model, back is sparse) == (inplace, inplace)


def test_a_copy_leaves_the_model_as_it_is():
    model = network()
    state, kinds, random = state_of(model), [type(m) for m in model.modules()], torch.get_rng_state()
    sparse = sparsify(model, Ticket.magnitude(model, 0.6))
    with torch.no_grad():
        for p in sparse.parameters():
            p.add_(1)
    state_of_sparse = state_of(sparse)
    with torch.no_grad():
        for p in densify(sparse).parameters():
            p.add_(1)
    assert_equal_states(state_of(sparse), state_of_sparse)
    assert_equal_states(state_of(model), state)
    assert [type(m) for m in model.modules()] == kinds and torch.equal(random, torch.get_rng_state())


def test_what_is_kept_and_what_is_renamed():
    model = network().double()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    sparse = sparsify(model, Ticket.magnitude(model, 0.6, exclude="5"), "dense")
    assert [name for name, _ in sparse.named_parameters()] == [
        "0.values", "0.bias", "1.weight", "1.bias", "3.values", "5.weight", "5.bias",
    ]
    assert isinstance(sparse[0], SparseConv2d) and type(sparse[5]) is nn.Linear and sparse[0].backend == "dense"
    assert sparse[0].values.dtype == torch.float64
    assert not sparse[0].values.requires_grad and sparse[0].bias.requires_grad
    assert [m.training for m in sparse] == [m.training for m in model] and not sparse[1].training


def test_inplace_keeps_the_parameters_it_does_not_replace():
    model = network()
    kept = {name: p for name, p in model.named_parameters() if not name.endswith("weight") or name == "1.weight"}
    sparsify(model, Ticket.magnitude(model, 0.6), inplace=True)
    assert all(dict(model.named_parameters())[name] is p for name, p in kept.items())
    densify(model, inplace=True)
    assert all(model.get_parameter(name) is p for name, p in kept.items())


@places
def test_the_same_layer_under_two_names(inplace):
    layer = nn.Linear(4, 4)
    model = nn.ModuleDict({"a": layer, "b": nn.Sequential(layer, nn.ReLU())})
    ticket = Ticket.magnitude(model, 0.5)
    assert list(ticket) == ["a.weight"]
    sparse = sparsify(model, ticket, inplace=inplace)
    assert isinstance(sparse["a"], SparseLinear) and sparse["a"] is sparse["b"][0]
    assert ticket_of(sparse) == ticket
    back = densify(sparse, inplace=inplace)
    assert type(back["a"]) is nn.Linear and back["a"] is back["b"][0]


@places
@pytest.mark.parametrize("name", ["a.weight", "b.0.weight"])
def test_either_name_will_do(inplace, name):
    layer = nn.Linear(4, 4)
    model = nn.ModuleDict({"a": layer, "b": nn.Sequential(layer)})
    sparse = sparsify(model, Ticket.from_masks({name: torch.eye(4) > 0}), inplace=inplace)
    assert sparse["a"] is sparse["b"][0] and list(ticket_of(sparse)) == ["a.weight"]


@places
def test_layers_that_share_a_weight_or_a_bias(inplace):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight, model[2].bias = model[0].weight, model[0].bias
    ticket = Ticket.magnitude(model, 0.5, exclude="2")
    sparse = sparsify(model, ticket, inplace=inplace)
    assert sparse[0].values is sparse[1].values and sparse[0].bias is sparse[2].bias
    assert sparse[0] is not sparse[1] and type(sparse[2]) is nn.Linear and ticket_of(sparse) == ticket
    back = densify(sparse, inplace=inplace)
    assert back[0].weight is back[1].weight and back[0].bias is back[2].bias


def test_references_outside_the_module_tree_are_copied_too():
    model = network()
    model.heads = [model[5]]  # a plain list: no registered submodule
    sparse = sparsify(model, Ticket.magnitude(model, 0.5))
    assert sparse.heads[0] is sparse[5] and isinstance(sparse[5], SparseLinear)


def test_a_single_layer():
    layer = nn.Linear(4, 4)
    ticket = Ticket.magnitude(layer, 0.5)
    sparse = sparsify(layer, ticket)
    assert list(ticket) == ["weight"] and isinstance(sparse, SparseLinear) and ticket_of(sparse) == ticket
    assert torch.equal(densify(sparse).weight, masked(layer, ticket).weight)
    with pytest.raises(ValueError, match="got a Linear; use inplace=False"):
        sparsify(layer, ticket, inplace=True)
    with pytest.raises(ValueError, match="got a SparseLinear; use inplace=False"):
        densify(sparse, inplace=True)


@places
def test_a_model_pruned_by_torch(inplace):
    model = network()
    prune.global_unstructured([(model[0], "weight"), (model[5], "weight")], prune.L1Unstructured, amount=0.6)
    with torch.no_grad():
        model[0].weight_orig.add_(1)  # prune's own `weight` follows only at its next forward pass
    expected = model[0].weight_orig.detach() * model[0].weight_mask
    sparse = sparsify(model, Ticket.from_prune(model), inplace=inplace)
    assert not prune.is_pruned(sparse) and type(sparse[3]) is nn.Conv2d
    assert torch.equal(sparse[0].weight, expected)


class Scaled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def with_layer(index: int, layer: nn.Module) -> nn.Module:
    model = network()
    model[index] = layer
    return model


def with_hook(register: str) -> nn.Module:
    model = network()
    getattr(model[0], register)(lambda *_: None)
    return model


def with_shared_embedding() -> nn.Module:
    model = nn.ModuleDict({"5": nn.Linear(4, 8), "words": nn.Embedding(8, 4)})
    model["5"].weight = model["words"].weight
    return model


REFUSED = {  # how to make the model, the weight and its shape in the ticket, the message
    "fewer": (lambda: network()[:5], "5.weight", (4, 54), "the model has no such weight"),
    "bias": (network, "5.bias", (1, 4), "the model has no such weight"),
    "norm": (network, "1.weight", (1, 4), "it belongs to BatchNorm2d, and only Conv2d and Linear"),
    "shape": (network, "5.weight", (5, 54), r"its shape is \(5, 54\) in the ticket, \(4, 54\) in the model"),
    "transposed": (lambda: with_layer(3, nn.ConvTranspose2d(6, 4, 3)), "3.weight", (6, 4, 3, 3), "to ConvTranspose2d"),
    "subclass": (lambda: with_layer(5, Scaled(54, 4)), "5.weight", (4, 54), "it belongs to Scaled, a subclass"),
    "attention": (lambda: nn.MultiheadAttention(4, 2), "out_proj.weight", (4, 4), "a subclass that may use its weight"),
    "hook": (lambda: with_hook("register_forward_hook"), "0.weight", (4, 2, 3, 3), "its layer has hooks"),
    "pre-hook": (lambda: with_hook("register_forward_pre_hook"), "0.weight", (4, 2, 3, 3), "its layer has hooks"),
    "backward": (lambda: with_hook("register_full_backward_hook"), "0.weight", (4, 2, 3, 3), "its layer has hooks"),
    "pruned bias": (
        lambda: with_layer(5, prune.l1_unstructured(nn.Linear(54, 4), "bias", amount=1)),
        "5.weight", (4, 54), "its layer has hooks",
    ),
    "computed": (
        lambda: with_layer(5, parametrizations.weight_norm(nn.Linear(54, 4))), "5.weight", (4, 54), "it is computed",
    ),
    "sparse": (
        lambda: with_layer(5, sparsify(nn.Linear(54, 4), Ticket.from_masks({"weight": torch.ones(4, 54) > 0}))),
        "5.weight", (4, 54), "its layer is sparse already",
    ),
    "embedding": (with_shared_embedding, "5.weight", (8, 4), "it belongs to Embedding"),
}


@places
@pytest.mark.parametrize(("make", "name", "shape", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_before_anything_is_changed(make, name, shape, message, inplace):
    model = make()
    good = Ticket.magnitude(network(), 0.5).masks()
    masks = {n: mask for n, mask in good.items() if n != name and len(list(model.children())) > 2}
    state, kinds = state_of(model), [type(m) for m in model.modules()]
    with pytest.raises(TicketError, match=f"got 1 that do not: '{name}': .*{message}"):
        sparsify(model, Ticket.from_masks({**masks, name: torch.ones(shape) > 0}), inplace=inplace)
    assert_equal_states(state_of(model), state)
    assert [type(m) for m in model.modules()] == kinds


def test_a_weight_under_two_names_with_two_patterns():
    layer = nn.Linear(4, 4)
    masks = {"0.weight": torch.eye(4) > 0, "1.weight": torch.eye(4) == 0}
    with pytest.raises(TicketError, match="'1.weight': it is shared with a weight of another pattern"):
        sparsify(nn.Sequential(layer, layer), Ticket.from_masks(masks))
    same = Ticket.from_masks({"0.weight": torch.eye(4) > 0, "1.weight": torch.eye(4) > 0})
    assert ticket_of(sparsify(nn.Sequential(layer, layer), same))["0.weight"] == same["0.weight"]


@places
def test_bad_arguments(inplace):
    model = network()
    ticket = Ticket.magnitude(model, 0.5)
    state = state_of(model)
    with pytest.raises(ValueError, match="expected backend to be one of 'auto', .* got 'gpu'"):
        sparsify(model, ticket, backend="gpu", inplace=inplace)
    with pytest.raises(TypeError, match="expected a Ticket, got dict; use Ticket.from_masks"):
        sparsify(model, ticket.masks(), inplace=inplace)
    with pytest.raises(ValueError, match="expected a model with sparse layers, got Sequential without"):
        ticket_of(model)
    assert_equal_states(state_of(model), state)


def test_a_long_list_of_misfits_is_cut():
    ticket = Ticket.from_masks({f"{i}.weight": torch.eye(4) > 0 for i in range(10, 18)})
    with pytest.raises(TicketError, match="got 8 that do not.*'14.weight'.*; and 3 more"):
        sparsify(network(), ticket)
