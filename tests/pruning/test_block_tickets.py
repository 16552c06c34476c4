"""Block tickets after a permutation, and E-LTH's controls."""

from __future__ import annotations

import pytest
import torch

import sparsemeta as sm
from sparsemeta.models import ConvN, ResNetCifar
from sparsemeta.pruning import SCORES, Probe, ticket_from_scores
from sparsemeta.pruning.block_tickets import block_ticket, fitting_blocks
from sparsemeta.pruning.elastic_controls import CONTROLS, control


@pytest.fixture
def model():
    return ResNetCifar(8, widths=(8, 8, 16), image_size=8, classes=4)


def test_blocks_only_where_they_fit(model):
    blocks = fitting_blocks(model, (4, 4))
    assert "stem.conv.weight" not in blocks  # 3 input channels
    assert blocks["stages.2.0.conv1.conv.weight"] == blocks["head.weight"] == (4, 4)
    assert "head.weight" not in fitting_blocks(model, (4, 4), exclude=["head"])
    assert "head.weight" not in fitting_blocks(model, (4, 4, 3, 3))  # a linear weight has no taps


def test_a_block_ticket_runs_on_the_permuted_model_and_keeps_more(model):
    found = block_ticket(model, (4, 4), (3, 8, 8), sparsity=0.7, exclude=["head"], proposals=10)
    assert found.ticket.sparsity == pytest.approx(0.7, abs=0.01)
    assert found.ticket["stages.1.0.conv1.conv.weight"].block == (4, 4, 1, 1)
    assert found.magnitude_before < found.magnitude <= 1
    permuted = found.permutation.model(model)
    kept = sum((permuted.get_parameter(n).abs() * p.mask()).sum().item() for n, p in found.ticket.items())
    scores = SCORES["magnitude"](model, exclude=["head"])
    most = sum((scores[n] * p.mask()).sum().item() for n, p in ticket_from_scores(scores, sparsity=0.7).items())
    assert kept / most == pytest.approx(found.magnitude, rel=1e-6)
    x = torch.rand(2, 3, 8, 8)
    sparse = sm.sparsify(permuted, found.ticket).eval()
    torch.testing.assert_close(sparse(x), sm.densify(sparse)(x), rtol=1e-4, atol=1e-4)


def test_unstructured_keeps_all_there_is(model):
    found = block_ticket(model, (1, 1), (3, 8, 8), sparsity=0.7, proposals=1)
    assert found.magnitude == found.magnitude_before == 1
    assert found.ticket == sm.Ticket.magnitude(model, 0.7)


@pytest.mark.parametrize("name", CONTROLS)
def test_controls_have_the_tickets_size(model, name):
    ticket = sm.Ticket.magnitude(model, 0.6)
    probe = Probe.supervised([(torch.rand(6, 3, 8, 8), torch.randint(4, (6,)))])
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    other, masks = control(name, model, ticket, probe, seed=3)
    assert masks.nnz == ticket.nnz and masks.keys() == ticket.keys()
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    same_weights = torch.equal(other.head.weight, model.head.weight)
    assert same_weights == (name != "reinitialised")
    assert (masks == ticket) == (name in ("reinitialised", "magnitude"))
    assert (masks.kept == ticket.kept) == (name in ("reinitialised", "magnitude", "random"))


def test_controls_cover_what_the_ticket_covers():
    model = ConvN(2, hidden=4, image_size=8)
    ticket = sm.Ticket.magnitude(model, 0.5, exclude=["head"])
    assert control("magnitude", model, ticket)[1] == ticket


def test_control_errors(model):
    ticket = sm.Ticket.magnitude(model, 0.6)
    with pytest.raises(ValueError, match="reinitialised, random, snip, grasp, magnitude, got 'shuffled'"):
        control("shuffled", model, ticket)
    with pytest.raises(ValueError, match="expected a probe"):
        control("snip", model, ticket)
