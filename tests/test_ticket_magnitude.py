"""Tickets by magnitude: which weights stay, how many exactly, in blocks too."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparsemeta.ticket import Ticket


def network() -> nn.Sequential:
    """Weights of one scale, so that no layer is pruned away as a whole."""
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1), nn.Flatten(), nn.Sequential(nn.Linear(8, 4))
    )
    for name in NAMES:
        nn.init.normal_(model.get_parameter(name))
    return model


NAMES = ["0.weight", "2.weight", "4.0.weight"]


def magnitudes(model: nn.Module, ticket: Ticket, kept: bool) -> torch.Tensor:
    return torch.cat([model.get_parameter(name)[mask == kept].abs() for name, mask in ticket.masks().items()])


@pytest.mark.parametrize("sparsity", [0, 0.3, 0.5, 0.8, 0.95])
def test_global_keeps_the_largest(sparsity):
    model = network()
    ticket = Ticket.magnitude(model, sparsity)
    assert list(ticket) == NAMES
    assert ticket.numel - ticket.nnz == round(sparsity * 384)
    if sparsity:
        assert magnitudes(model, ticket, kept=True).min() >= magnitudes(model, ticket, kept=False).max()


def test_global_is_not_by_layer():
    model = network()
    with torch.no_grad():
        model[2].weight.mul_(100)
    assert Ticket.magnitude(model, 0.8).kept["2.weight"] > 50  # of 64; layer by layer it would be 13


@pytest.mark.parametrize("sparsity", [0, 0.3, 0.8, 0.95])
def test_layers_each_keep_their_largest(sparsity):
    model = network()
    ticket = Ticket.magnitude(model, sparsity, scope="layer")
    for name in NAMES:
        assert ticket[name].numel - ticket[name].nnz == round(sparsity * ticket[name].numel)
        alone = Ticket({name: ticket[name]})
        if sparsity:
            assert magnitudes(model, alone, kept=True).min() >= magnitudes(model, alone, kept=False).max()


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_every_layer_keeps_its_best(scope):
    model = network()
    with torch.no_grad():
        model[2].weight.mul_(1e-6)
    ticket = Ticket.magnitude(model, 0.99, scope)
    assert all(ticket.kept.values())
    best = model[2].weight.abs().argmax()
    assert ticket.masks()["2.weight"].flatten()[best]
    assert set(Ticket.magnitude(model, 0.99999, scope).kept.values()) == {1}


def test_ties_are_pruned_from_the_front_every_time():
    model = network()
    for name in NAMES:
        nn.init.ones_(model.get_parameter(name))
    ticket = Ticket.magnitude(model, 0.5)
    assert all(Ticket.magnitude(model, 0.5) == ticket for _ in range(3))
    assert ticket.numel - ticket.nnz == 192
    mask = ticket.masks()["0.weight"].flatten()
    assert mask[0] and not mask[1:193].any() and mask[193:].all()  # the first entry is the one its layer keeps


def test_blocks_rank_by_mean_magnitude():
    model = network()
    ticket = Ticket.magnitude(model, 0.5, block=(2, 4))
    kept, pruned = [], []
    for name, mask in ticket.masks().items():
        weight = model.get_parameter(name).abs()
        for o, i in ((o, i) for o in range(0, mask.shape[0], 2) for i in range(0, mask.shape[1], 4)):
            block, scores = mask[o : o + 2, i : i + 4], weight[o : o + 2, i : i + 4].mean((0, 1))
            kept += scores[block.all(0).all(0)].flatten().tolist()
            pruned += scores[~block.any(0).any(0)].flatten().tolist()
    assert len(kept) == len(pruned) == 24 and min(kept) > max(pruned)


def test_blocks_prune_at_most_what_is_asked():
    ticket = Ticket.magnitude(network(), 0.55, block=(4, 4))
    assert ticket.numel - ticket.nnz == 208  # 13 blocks of 16, for round(0.55 * 384) = 211


def test_blocks_of_different_sizes_compare_by_entry():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    nn.init.constant_(model[0].weight, 2.0)
    nn.init.constant_(model[1].weight, 1.0)
    ticket = Ticket.magnitude(model, 0.375, block={"0.weight": (1, 1), "1.weight": (2, 2)})
    assert ticket.kept == {"0.weight": 16, "1.weight": 4}


CASES = {"module": "4", "list": ["4.0"], "weight": ("4.0.weight",), "iterator": iter(["4"])}


@pytest.mark.parametrize("exclude", CASES.values(), ids=CASES)
def test_exclude(exclude):
    assert list(Ticket.magnitude(network(), 0.5, exclude=exclude)) == NAMES[:2]


def test_shared_weight_counts_once():
    layer, tied = nn.Linear(4, 4), nn.Linear(4, 4)
    tied.weight = layer.weight
    assert list(Ticket.magnitude(nn.Sequential(layer, layer, tied), 0.5)) == ["0.weight"]


def test_pruned_weights_are_the_smallest():
    model = network()
    first = Ticket.magnitude(model, 0.5)
    second = Ticket.magnitude(first.to_prune(model), 0.75)
    assert all(not (mask & ~first.masks()[name]).any() for name, mask in second.masks().items())


def test_random_state_and_model_stay():
    model = network()
    state, before = torch.get_rng_state(), {n: t.clone() for n, t in model.state_dict().items()}
    Ticket.magnitude(model, 0.5, block=(2, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


BAD = {
    "one": ({"sparsity": 1.0}, "0 <= sparsity < 1, got 1.0"),
    "percent": ({"sparsity": 80}, "got 80"),
    "negative": ({"sparsity": -0.1}, "got -0.1"),
    "nan": ({"sparsity": float("nan")}, "got nan"),
    "text": ({"sparsity": "0.8"}, "got '0.8'"),
    "scope": ({"scope": "local"}, r"one of \('global', 'layer'\), got 'local'"),
    "block": ({"block": (3, 1)}, r"'0.weight': expected a block .* got \(3, 1\).*exclude=\('0.weight',\)"),
    "exclude": ({"exclude": "haed"}, "got 'haed'.*0.weight, 2.weight, 4.0.weight"),
    "all": ({"exclude": ["0", "2", "4"]}, "all excluded"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Ticket.magnitude(network(), **arguments)


def test_weights_that_are_not_finite():
    model = network()
    nn.init.constant_(model[2].weight, float("nan"))
    with pytest.raises(ValueError, match="NaN or infinity in '2.weight'"):
        Ticket.magnitude(model, 0.5)


@pytest.mark.parametrize(("block", "message"), [
    (4, r"expected a block \(o, i\) or .*, got 4"),
    ({"0.wieght": (2, 2)}, "the name of a weight in block; got '0.wieght'. The nearest is '0.weight'"),
], ids=["number", "name"])
def test_a_wrong_block_is_named(block, message):
    model = network()
    for make in (Ticket.magnitude, lambda m, block: Ticket.from_masks({"0.weight": m[0].weight > 9}, block)):
        with pytest.raises(ValueError, match=message):
            make(model, block=block)
