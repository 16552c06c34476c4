"""Dead structure, on networks small enough to see it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import sparsemeta as sm
from sparsemeta.pruning import dead_units


def chain():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    masks = {f"{i}.weight": torch.zeros_like(model[i].weight, dtype=torch.bool) for i in (0, 2, 4)}
    for layer, unit, source in [(0, 0, 0), (0, 1, 0), (2, 0, 0), (2, 2, 3), (4, 0, 0), (4, 1, 1), (4, 1, 0)]:
        masks[f"{layer}.weight"][unit, source] = True
    return model, sm.Ticket.from_masks(masks)


def test_a_chain_by_hand():
    found = dead_units(*chain(), (3,))
    assert found.outputs == {"0.weight": 2, "2.weight": 1, "4.weight": 0}
    assert found.inputs == {"0.weight": 2, "2.weight": 2, "4.weight": 1}
    # 0 -> 0 -> 0 -> both outputs; (0, 1, 0) ends at an unread unit, (2, 2, 3) starts at one without weights
    assert found.alive == {"0.weight": 1, "2.weight": 1, "4.weight": 2}
    assert found.effective_sparsity == pytest.approx(1 - 4 / (12 + 12 + 6))


def test_residual_paths_keep_alive():
    model = sm.models.ResNet12(widths=(4, 4), in_channels=1, image_size=8)
    ticket = sm.Ticket.magnitude(model, 0.5, exclude="head")
    masks = ticket.masks()
    masks["blocks.0.conv2.conv.weight"][:] = False
    found = dead_units(model, sm.Ticket.from_masks(masks), (1, 8, 8))
    assert found.alive["blocks.0.conv1.conv.weight"] == found.alive["blocks.0.conv3.conv.weight"] == 0
    assert found.alive["blocks.0.shortcut.conv.weight"] == ticket.kept["blocks.0.shortcut.conv.weight"] > 0


def test_nothing_is_dead_in_a_dense_ticket():
    model = sm.models.Conv4(3, 1, 8, 28)
    full = dead_units(model, sm.Ticket.magnitude(model, 0.0), (1, 28, 28))
    assert full.alive == full.numel and full.effective_sparsity == 0
    assert set(full.outputs.values()) == set(full.inputs.values()) == {0}


def test_the_model_stays():
    model, ticket = chain()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    dead_units(model, ticket, (3,))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
