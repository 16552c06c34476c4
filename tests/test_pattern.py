"""Pattern: order of the values, compress and expand as adjoints, identity, and bad masks."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from sparsemeta.pattern import Pattern
from sparsemeta.pattern_bits import every_block, keep_blocks, pack, unpack

CONV = (6, 4, 3, 3)
SHAPES = [((6, 4), (1, 1)), ((6, 4), (3, 2)), (CONV, (1, 1)), (CONV, (2, 4)), (CONV, (2, 1, 3, 3))]
shapes = pytest.mark.parametrize(("shape", "block"), SHAPES)


def random_pattern(shape, block) -> Pattern:
    everything = every_block(shape, block)
    blocks = everything.numel // torch.Size(everything.block).numel()
    return keep_blocks(everything, torch.rand(blocks) < 0.4)


def test_order_of_unstructured_values_is_row_major():
    mask = torch.rand(6, 4, 3, 3) < 0.3
    assert torch.equal(Pattern.from_mask(mask).index, mask.flatten().nonzero().squeeze(1))


def test_order_of_block_values_is_block_by_block():
    weight = torch.arange(24).view(4, 6)
    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask[0:2, 3:6] = mask[2:4, 0:3] = True
    pattern = Pattern.from_mask(mask, block=(2, 3))
    assert pattern.compress(weight).tolist() == [3, 4, 5, 9, 10, 11, 12, 13, 14, 18, 19, 20]
    assert (pattern.nnz, pattern.numel, pattern.sparsity, pattern.block) == (12, 24, 0.5, (2, 3))


def test_two_sizes_of_a_block_are_one_block_for_each_tap():
    mask = torch.zeros(2, 2, 3, 3, dtype=torch.bool)
    mask[:, :, 1, 2] = True
    assert Pattern.from_mask(mask, block=(2, 2)) == Pattern.from_mask(mask, block=(2, 2, 1, 1))


@shapes
def test_compress_is_the_gather_and_expand_its_inverse_on_the_kept(shape, block):
    pattern, weight = random_pattern(shape, block), torch.randn(shape)
    values = pattern.compress(weight)
    assert torch.equal(values, weight.flatten()[pattern.index])
    assert torch.equal(pattern.expand(values), weight * pattern.mask())
    assert torch.equal(pattern.mask(), Pattern.from_mask(pattern.mask(), block).mask())


@shapes
def test_compress_and_expand_are_adjoint(shape, block):
    pattern = random_pattern(shape, block)
    weight, values = torch.randn(3, *shape).double(), torch.randn(3, pattern.nnz).double()
    torch.testing.assert_close((pattern.compress(weight) * values).sum(), (weight * pattern.expand(values)).sum())


@shapes
@pytest.mark.parametrize("tasks", [(), (2,)], ids=["one", "tasks"])
def test_derivatives(shape, block, tasks):
    pattern = random_pattern(shape, block)
    weight = torch.randn(*tasks, *shape, dtype=torch.float64, requires_grad=True)
    values = torch.randn(*tasks, pattern.nnz, dtype=torch.float64, requires_grad=True)
    for function, operand in ((pattern.compress, weight), (pattern.expand, values)):
        assert torch.autograd.gradcheck(function, operand)
        assert torch.autograd.gradgradcheck(lambda t, f=function: f(t).square(), operand)


def test_task_axes_equal_a_loop_and_a_map():
    pattern = random_pattern((6, 4, 3, 3), (2, 2))
    weight, values = torch.randn(3, 6, 4, 3, 3), torch.randn(3, pattern.nnz)
    assert torch.equal(pattern.compress(weight), torch.stack([pattern.compress(w) for w in weight]))
    assert torch.equal(pattern.expand(values), torch.stack([pattern.expand(v) for v in values]))
    assert torch.equal(pattern.expand(values), torch.vmap(pattern.expand)(values))
    assert torch.equal(pattern.compress(weight), torch.vmap(pattern.compress)(weight))


def test_equality_hash_copy_and_pickle():
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[:2, :2] = True
    pattern, same = Pattern.from_mask(mask), Pattern.from_mask(mask.clone())
    assert pattern == same and hash(pattern) == hash(same)
    assert pattern != Pattern.from_mask(mask, block=(2, 2))
    assert pattern != Pattern.from_mask(~mask)
    assert pattern != Pattern.from_mask(mask.view(4, 4, 1, 1))
    assert copy.deepcopy(pattern) is pattern
    assert pickle.loads(pickle.dumps(pattern)) == pattern


@shapes
def test_bits_round_trip(shape, block):
    pattern = random_pattern(shape, block)
    bits = pack(pattern)
    assert bits.nbytes == -(-pattern.numel // torch.Size(pattern.block).numel() // 8)
    assert unpack(bits, pattern.shape, pattern.block) == pattern


def test_first_block_is_the_highest_bit():
    mask = torch.zeros(2, 6, dtype=torch.bool)
    mask[0, 0] = mask[1, 5] = True
    assert pack(Pattern.from_mask(mask)).tolist() == [0b10000000, 0b00010000]


@pytest.mark.parametrize("kept", [0, 24])
def test_nothing_and_everything_kept(kept):
    pattern = Pattern.from_mask(torch.full((6, 4), bool(kept)))
    assert pattern.nnz == kept
    assert pattern.expand(pattern.compress(torch.ones(6, 4))).sum() == kept
    assert unpack(pack(pattern), (6, 4), (1, 1)) == pattern


BAD_MASKS = {
    "float": (torch.ones(4, 4), (1, 1), TypeError, "torch.bool mask, got a torch.float32"),
    "uint8": (torch.ones(4, 4, dtype=torch.uint8), (1, 1), TypeError, r"mask\.bool\(\)"),
    "list": ([[True]], (1, 1), TypeError, "got list"),
    "rank": (torch.ones(4, dtype=torch.bool), (1, 1), ValueError, r"got \(4,\)"),
    "meta": (torch.ones(4, 4, dtype=torch.bool, device="meta"), (1, 1), ValueError, "meta device"),
    "divide": (torch.ones(4, 4, dtype=torch.bool), (3, 1), ValueError, r"divide the shape \(4, 4\), got \(3, 1\)"),
    "zero": (torch.ones(4, 4, dtype=torch.bool), (0, 1), ValueError, "positive integers"),
    "real": (torch.ones(4, 4, dtype=torch.bool), (2.0, 1), ValueError, "positive integers"),
    "axes": (torch.ones(4, 4, dtype=torch.bool), (1, 1, 1), ValueError, r"got \(1, 1, 1\)"),
    "partly": (torch.eye(4, dtype=torch.bool), (2, 2), ValueError, "got 2 partly kept"),
}


@pytest.mark.parametrize(("mask", "block", "error", "message"), BAD_MASKS.values(), ids=BAD_MASKS)
def test_bad_mask(mask, block, error, message):
    with pytest.raises(error, match=message):
        Pattern.from_mask(mask, block)


def test_bad_operands():
    pattern = Pattern.from_mask(torch.eye(4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"pattern's shape \(4, 4\).*got \(4, 5\)"):
        pattern.compress(torch.ones(4, 5))
    with pytest.raises(ValueError, match=r"expected values of shape \(4,\).*got \(5,\)"):
        pattern.expand(torch.ones(5))


def test_expand_runs_inside_a_module_on_parameters():
    pattern = random_pattern((6, 4), (1, 1))
    values = nn.Parameter(torch.randn(pattern.nnz))
    (pattern.expand(values) @ torch.ones(4)).sum().backward()
    assert torch.equal(values.grad, torch.ones(pattern.nnz))
