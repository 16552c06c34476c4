"""The cases of `sparsemeta bench conv`: what is compared is the same convolution everywhere."""

from __future__ import annotations

import pytest
import torch
from sparsemeta.bench.cases import conv_peers
from sparsemeta.bench.cases.conv_shapes import SHAPES, ConvShape
from sparsemeta.bench.cases.masked_conv2d import PASSES, cases
from sparsemeta.bench.cases.structures import block_of

from sparsemeta import backends

HERE = [name for name in ("dense", "cpu") if not backends.available()[name]]
TINY = ConvShape(2, 16, 16, 6)


@pytest.mark.parametrize("passes", PASSES)
@pytest.mark.parametrize("structure", ["unstructured", "16x1", "4x4", "1x1x3x3"])
@pytest.mark.parametrize(
    "shape", [TINY, ConvShape(3, 16, 32, 7, stride=2), ConvShape(2, 4, 16, 6, input_grad=False)], ids=str
)
def test_every_way_gives_the_exact_results(shape, structure, passes):
    [case] = cases([shape], [structure], [0.75], [passes], [1], HERE, ["torch.sparse"])
    errors = {f"{c.role} {c.name}": c.error(c.run()) for c in case.candidates()}
    assert len(errors) == 2 + len(HERE) + 1 and max(errors.values()) < 1e-5, errors


def test_backward_is_checked_gradient_by_gradient():
    [case] = cases([TINY], passes=["forward+backward"], sparsities=[0.8], backends=["dense"])
    for candidate in case.candidates():
        results = candidate.run()
        assert len(results) == 3
        for i in range(3):
            assert candidate.error((*results[:i], results[i] * 1.01, *results[i + 1 :])) == pytest.approx(0.01, rel=0.1)


def test_first_layer_has_no_input_gradient():
    shape = ConvShape(2, 3, 8, 6, input_grad=False)
    [case] = cases([shape], sparsities=[0.5], passes=["forward+backward"], backends=["dense"])
    assert len(case.candidates()[0].run()) == 2


@pytest.mark.parametrize(("structure", "kept"), [("unstructured", 230), ("16x1", 14), ("1x1x3x3", 26)])
def test_pattern_has_the_sparsity_and_its_ideal_is_the_ratio_of_weights(structure, kept):
    [case] = cases([TINY], [structure], [0.9], ["forward"], backends=["dense"])
    pattern = case.pattern()
    assert pattern.nnz == kept * torch.Size(pattern.block).numel() and pattern == case.pattern()
    assert case.ideal == pytest.approx(pattern.numel / pattern.nnz)


def test_every_combination_but_blocks_that_do_not_fit():
    shapes = [TINY, ConvShape(2, 3, 16, 6, kernel=1)]
    found = cases(shapes, ["unstructured", "4x4", "1x1x3x3"], (0.8, 0.9), PASSES, (1, 2), ["dense"])
    assert len(found) == (3 + 1) * 2 * 2 * 2
    assert block_of("4x4", shapes[1].weight) is None and block_of("16x1", shapes[1].weight) == (16, 1, 1, 1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"structures": ["4"]}, 'expected a pattern like "unstructured"'),
        ({"structures": ["5x5"]}, "expected a block that divides"),
        ({"sparsities": [1.0]}, "expected sparsities from 0 to below 1"),
        ({"passes": ["backward"]}, "expected each pass to be one of forward"),
        ({"threads": [0]}, "expected at least one thread"),
        ({"backends": ["gpu"]}, "expected backend to be one of"),
        ({"peers": ["torchao"]}, "expected each peer to be one of compiled"),
    ],
)
def test_bad_input_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        cases([TINY], **{"backends": ["dense"], **wrong})


def test_what_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr(conv_peers, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="expected the package sparseprop"):
        cases([TINY], backends=["dense"], peers=["sparseprop"])
    monkeypatch.setattr(backends, "available", lambda: {"cpu": ["no compiler was there"]})
    with pytest.raises(ValueError, match="no compiler was there"):
        cases([TINY], backends=["cpu"])


def test_shapes_are_those_of_the_backbones():
    assert str(SHAPES["conv4"][0]) == "25x64x42x42 to 64, 3x3" and SHAPES["resnet12"][-1].kernel == 1
    with pytest.raises(ValueError, match="expected size to be at least 1, got 0"):
        ConvShape(size=0)
