"""Ticket algebra against sets of positions."""

from __future__ import annotations

import pytest
import torch

import sparsemeta as sm
from sparsemeta.pruning import intersection, overlap, reinitialise, shuffle, union


def tickets(block=(1, 1)):
    model = torch.nn.Sequential(torch.nn.Conv2d(4, 8, 3), torch.nn.Flatten(), torch.nn.Linear(8, 4))
    first = sm.Ticket.magnitude(model, 0.5, block=block)
    return first, sm.Ticket.magnitude(reinitialise(model, seed=1), 0.6, block=block)


def positions(ticket):
    return {(name, i) for name, pattern in ticket.items() for i in pattern.index.tolist()}


@pytest.mark.parametrize("block", [(1, 1), (2, 2)])
def test_union_intersection_overlap(block):
    a, b = tickets(block)
    both, either = positions(a) & positions(b), positions(a) | positions(b)
    assert positions(intersection(a, b)) == both and positions(union(a, b)) == either
    assert union(a, b)["2.weight"].block == intersection(a, b)["2.weight"].block == block
    found = overlap(a, b)
    assert found.jaccard == len(both) / len(either) and found.shared == len(both) / len(positions(a))
    layer = {p for p in both if p[0] == "2.weight"}
    assert found.layers["2.weight"] == len(layer) / a.kept["2.weight"]
    assert overlap(a, a).jaccard == overlap(a, a).shared == 1


def test_other_blocks_make_it_unstructured():
    a, _ = tickets((2, 2))
    _, b = tickets()
    assert union(a, b)["0.weight"].block == (1, 1, 1, 1)


def test_tickets_of_different_weights():
    a, _ = tickets()
    with pytest.raises(sm.TicketError, match=r"differ in \['2.weight'\]"):
        overlap(a, sm.Ticket({"0.weight": a["0.weight"]}))


@pytest.mark.parametrize("block", [(1, 1), (2, 2)])
def test_shuffle_keeps_how_many_and_not_which(block):
    a, _ = tickets(block)
    shuffled = shuffle(a, seed=3)
    assert shuffled.kept == a.kept and shuffled != a and shuffled == shuffle(a, seed=3) != shuffle(a, seed=4)
    assert shuffled["0.weight"].block == a["0.weight"].block and shuffled.provenance["shuffled"] == 3
    assert overlap(shuffled, a).shared < 0.8


def test_reinitialise_draws_anew_and_leaves_the_model():
    torch.manual_seed(0)
    model = sm.models.Conv4(3, 1, 8, 16)
    torch.nn.init.constant_(model.features[0].norm.weight, 7.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    new = reinitialise(model, seed=5)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not torch.equal(new.head.weight, model.head.weight) and (new.features[0].norm.weight == 1).all()
    assert torch.equal(new.head.weight, reinitialise(model, seed=5).head.weight)


def test_reinitialise_keeps_a_sparse_models_ticket():
    model = sm.models.Conv4(3, 1, 8, 16)
    ticket = sm.Ticket.magnitude(model, 0.8)
    sparse = sm.sparsify(model, ticket)
    new = reinitialise(sparse)
    assert sm.ticket_of(new) == ticket
    assert not torch.equal(new.head.values, sparse.head.values)


def test_reinitialise_needs_modules_that_can():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    model.scale = torch.nn.ParameterList([torch.nn.Parameter(torch.ones(2))])
    with pytest.raises(ValueError, match="none in .'scale'"):
        reinitialise(model)
