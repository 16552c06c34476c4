"""Rules that tell units by names."""

from __future__ import annotations

import pytest

from sparsemeta.models import VGG, Conv4, ResNet12, ResNetCifar
from sparsemeta.pruning.units import Unit, UnitRule


@pytest.mark.parametrize(
    ("model", "stages"),
    [
        (ResNetCifar(20), {"0": 3, "1": 3, "2": 3}), (Conv4(), {"": 4}), (ResNet12(widths=(2, 3)), {"": 2}),
        (VGG(16, widths=(2, 3, 4, 5, 5)), {"0": 2, "1": 2, "2": 3, "3": 3, "4": 3}),
    ],
)  # fmt: skip  a table
def test_models_of_the_package_need_no_rule(model, stages):
    names = list(model.state_dict())
    rule = UnitRule.of(names)
    assert rule.stages(names) == stages
    outside = {name for name in names if rule.unit(name) is None}
    assert {name.partition(".")[0] for name in outside} <= {"stem", "head"}


@pytest.mark.parametrize("text", ["layer{stage}.{block}.{rest}", r"layer(?P<stage>\d+)\.(?P<block>\d+)\..+", "layer"])
def test_a_format_and_a_regular_expression_and_a_name(text):
    rule = UnitRule.of(["layer1.0.conv1.weight", "fc.weight"], text)
    assert rule.unit("layer1.0.conv1.weight") == Unit("1", 0)
    assert rule.unit("fc.weight") is None
    assert rule.renamed("layer1.0.conv1.weight", 12) == "layer1.12.conv1.weight"


def test_a_stage_behind_its_block_and_text_with_points_are_taken_as_they_are():
    rule = UnitRule("b{block}s{stage}.w")
    assert rule.unit("b3s12.w") == Unit("12", 3) and rule.unit("b3s12xw") is None
    assert rule.renamed("b3s12.w", 40) == "b40s12.w"
    assert list(rule.stages(["b0s10.w", "b0s9.w"])) == ["9", "10"]


@pytest.mark.parametrize("text", ["stages.{stage}.{rest}", "", "(?P<block>", "{block}.{block}", "(?P<stage>.)"])
def test_bad_rules(text):
    with pytest.raises(ValueError, match="expected a rule for units"):
        UnitRule(text)


def test_names_that_the_rule_does_not_meet():
    with pytest.raises(ValueError, match=r"layer\{stage\}.*got \['conv.weight'\]"):
        UnitRule.of(["conv.weight"])
    with pytest.raises(ValueError, match=r"numbered 0, 1, 2, ... in the network, got \[0, 2\]"):
        UnitRule.of(["features.0.w", "features.2.w"])
