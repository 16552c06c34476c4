"""Masked convolution against dense PyTorch: one case for each shape, pattern, sparsity, pass and number of threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sparsemeta import Pattern

from ..case import Candidate
from .conv_candidates import PASSES, Problem, dense, sparse
from .conv_peers import PEERS, check_installed
from .layer_case import LayerCase
from .structures import block_of

# Of the largest entry. float32 sums of 180 000 products in any order come to 1e-5; one product too few would be 5e-4.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class ConvCase(LayerCase):
    """One convolution."""

    kind = "shape"
    known_passes = usual_passes = PASSES
    known_peers = tuple(PEERS)
    tolerance = TOLERANCE

    @classmethod
    def check_peers(cls, peers: Sequence[str]) -> None:
        """Raise `ValueError` for one that is unknown or not installed."""
        super().check_peers(peers)
        check_installed(peers)

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


cases = ConvCase.every
