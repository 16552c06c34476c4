"""Patterns and the layers that their bits stand for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import sparsemeta as sm
from sparsemeta.meta.lambda_layers import pattern_layers
from sparsemeta.meta.lambda_pattern import LambdaPattern, all_patterns


def test_rows():
    pattern = LambdaPattern("110/001")
    assert pattern.layers == 3 and [pattern.active(step) for step in (0, 1)] == [[0, 1], [2]]
    assert LambdaPattern("011").active(7) == [1, 2] and str(LambdaPattern.full(3)) == "111"
    assert LambdaPattern.from_table([[1, 1, 0], [0, 0, 1]]) == pattern
    assert LambdaPattern.from_table(torch.tensor([[True, True, False], [False, False, True]])) == pattern


@pytest.mark.parametrize("text", ["", "12", "00", "01/1", "01/", "00/00", 11, None])
def test_bad_patterns_are_named(text):
    with pytest.raises(ValueError, match="expected a pattern like '00111'.*got"):
        LambdaPattern(text)


def test_all_patterns():
    patterns = [str(p) for p in all_patterns(5)]
    assert len(set(patterns)) == 31 and patterns[0] == "11111" and {"00001", "11110"} < set(patterns)
    with pytest.raises(ValueError, match="1 to 12 layers.*got 13"):
        all_patterns(13)


def names(model: nn.Module) -> list[tuple[str, ...]]:
    return [layer.modules for layer in pattern_layers(model)]


def test_layers_of_the_backbones():
    conv4 = sm.models.Conv4(5, 1, 4, 16)
    assert names(conv4) == [("features.0",), ("features.1",), ("features.2",), ("features.3",), ("head",)]
    sparse = sm.sparsify(conv4, sm.Ticket.magnitude(conv4, 0.5))
    assert names(sparse) == names(conv4)
    assert pattern_layers(sparse)[0].parameters == (
        *("features.0.conv.values", "features.0.conv.bias"),
        *("features.0.norm.weight", "features.0.norm.bias"),
    )
    assert names(sm.models.ResNet12(5, 3, (4, 8), 16)) == [("blocks.0",), ("blocks.1",), ("head",)]


def test_layers_of_a_plain_sequential():
    model = nn.Sequential(
        nn.BatchNorm2d(1), nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)
    )
    assert names(model) == [("0", "1", "2"), ("3", "4"), ("5",)]
    assert names(nn.Linear(2, 2)) == [("",)]
    assert names(nn.Sequential(nn.Linear(2, 2), nn.Tanh())) == [("0", "1")]


def test_frozen_parameters_are_in_no_layer():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].bias.requires_grad_(False)
    assert pattern_layers(model)[1].parameters == ("1.weight",)
    model[1].requires_grad_(False)
    with pytest.raises(ValueError, match=r"none in \[\('1',\)\]"):
        pattern_layers(model)


def test_a_rule_of_ones_own():
    model = sm.models.Conv4(5, 1, 4, 16)
    layers = pattern_layers(model, lambda _: [["features.0", "features.1"], ["features.2", "features.3"], ["head"]])
    assert [len(layer.parameters) for layer in layers] == [8, 8, 2]
    with pytest.raises(ValueError, match=r"names modules of the model; got \['body'\]"):
        pattern_layers(model, lambda _: [["body"], ["head"]])
    with pytest.raises(ValueError, match=r"got \['head.weight', 'head.bias'\] in none"):
        pattern_layers(model, lambda _: [["features"]])
    with pytest.raises(ValueError, match=r"none in \[\('features.0',\)\]"):
        pattern_layers(model, lambda _: [["features"], ["features.0"], ["head"]])
