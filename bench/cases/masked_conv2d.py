"""Masked convolution against dense PyTorch: one case for each shape, pattern, sparsity, pass and number of threads."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sparsemeta import Pattern

from ..case import Candidate
from .choices import check_choices, check_names
from .conv_candidates import PASSES, Problem, dense, sparse
from .conv_peers import PEERS, check_installed
from .conv_shapes import ConvShape
from .structures import block_of

# Of the largest entry. float32 sums of 180 000 products in any order come to 1e-5; one product too few would be 5e-4.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class ConvCase:
    """One convolution, `structure` being `"unstructured"` or a block such as `"16x1"` or `"1x1x3x3"`."""

    shape: ConvShape
    structure: str
    sparsity: float
    passes: str
    threads: int
    backends: tuple[str, ...]
    peers: tuple[str, ...] = ()
    tolerance: float = TOLERANCE

    @property
    def labels(self) -> dict[str, Any]:
        """Columns of the report."""
        return {
            "shape": str(self.shape),
            "pattern": self.structure,
            "pass": self.passes,
            "threads": self.threads,
            "sparsity": self.sparsity,
        }

    @property
    def ideal(self) -> float:
        """Weights over kept weights, with whole blocks; the same for every pass."""
        blocks, kept = self._blocks()
        return blocks / kept

    def candidates(self) -> list[Candidate]:
        """Dense layouts, sparse backends, peers, on the same numbers."""
        problem = Problem.make(self.shape, self.pattern(), self.passes)
        found = [dense(problem, layout) for layout in ("contiguous", "channels_last")]
        found += [sparse(problem, backend) for backend in self.backends]
        return found + [candidate for peer in self.peers for candidate in PEERS[peer](problem)]

    def pattern(self) -> Pattern:
        """Random blocks, the same in every run."""
        block = block_of(self.structure, self.shape.weight)
        blocks, kept = self._blocks()
        mask = torch.zeros(blocks, dtype=torch.bool)
        mask[torch.randperm(blocks, generator=torch.Generator().manual_seed(0))[:kept]] = True
        mask = mask.view([size // b for size, b in zip(self.shape.weight, block, strict=True)])
        for axis, b in enumerate(block):
            mask = mask.repeat_interleave(b, axis)
        return Pattern.from_mask(mask, block)

    def _blocks(self) -> tuple[int, int]:
        block = block_of(self.structure, self.shape.weight)
        blocks = torch.Size(self.shape.weight).numel() // torch.Size(block).numel()
        return blocks, max(1, round(blocks * (1 - self.sparsity)))


def cases(
    shapes: Sequence[ConvShape],
    structures: Sequence[str] = ("unstructured",),
    sparsities: Sequence[float] = (0.8, 0.9, 0.95),
    passes: Sequence[str] = PASSES,
    threads: Sequence[int] = (1,),
    backends: Sequence[str] = ("cpu",),
    peers: Sequence[str] = (),
) -> list[ConvCase]:
    """Every combination but blocks that do not divide the weight.

    Raises:
        ValueError: an unknown name, a number out of range, a backend or peer that is not here, or nothing left to do.
    """
    check_choices(sparsities, threads, backends)
    check_names("pass", passes, PASSES)
    check_names("peer", peers, PEERS)
    check_installed(peers)
    found = [
        ConvCase(shape, structure, sparsity, which, count, tuple(backends), tuple(peers))
        for count, which, structure, shape, sparsity in itertools.product(
            threads, passes, structures, shapes, sparsities
        )
        if block_of(structure, shape.weight)
    ]
    if not found:
        weights = [shape.weight for shape in shapes]
        raise ValueError(f"expected a block that divides a weight of {weights}, got {list(structures)}")
    return found
