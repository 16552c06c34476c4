"""The definition of `masked_conv2d`: `F.conv2d` on a dense weight and plain autograd. Nothing of sparsemeta is used."""

from __future__ import annotations

import zlib

import torch
import torch.nn.functional as F
from conv_cases import Case
from torch import Tensor


def generator_of(case: Case) -> torch.Generator:
    """The case's own random numbers, the same in every order and subset of the tests."""
    return torch.Generator().manual_seed(zlib.crc32(case.name.encode()))


def mask_of(case: Case) -> Tensor:
    """The case's random mask, made of whole blocks."""
    counts = [n // b for n, b in zip(case.weight, full(case.block), strict=True)]
    draw = torch.rand(counts, generator=generator_of(case))
    kept = draw < case.density
    if case.density and not kept.any():
        kept = draw == draw.min()
    for axis, b in enumerate(full(case.block)):
        kept = kept.repeat_interleave(b, axis)
    return kept


def positions_of(mask: Tensor, block: tuple[int, ...] = (1, 1)) -> Tensor:
    """Flat position in the weight of every entry of `values`: block by block, row-major inside a block."""
    kept = [tuple(at) for at in mask.nonzero().tolist()]
    kept.sort(key=lambda at: ([i // b for i, b in zip(at, full(block), strict=True)], at))
    return torch.tensor([sum(i * s for i, s in zip(at, mask.stride(), strict=True)) for at in kept], dtype=torch.long)


def full(block: tuple[int, ...]) -> tuple[int, ...]:
    """A block (o, i) is one for each tap."""
    return block + (1, 1) * (len(block) == 2)


def dense_conv2d(x: Tensor, values: Tensor, bias: Tensor | None, positions: Tensor, weight, **arguments) -> Tensor:
    """What `masked_conv2d` is defined to be, task by task. `weight` is the shape of the dense weight."""
    if values.dim() == 2:
        return torch.stack(
            [
                dense_conv2d(_of_task(x, t, 5), values[t], _of_task(bias, t, 2), positions, weight, **arguments)
                for t in range(len(values))
            ]
        )
    flat = values.new_zeros(torch.Size(weight).numel()).index_put((positions,), values)
    return F.conv2d(x, flat.view(weight), bias, **arguments)


def _of_task(operand: Tensor | None, task: int, rank: int) -> Tensor | None:
    """An operand of fewer axes is the same for all tasks."""
    return operand[task] if operand is not None and operand.dim() == rank else operand
