"""Conditioning on context parameters: a FiLM layer, and a Conv-4 with one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from sparsemeta.models.conv4 import BLOCKS, Conv4


class FiLM(nn.Module):
    """Feature-wise linear modulation of ``[N, channels, ...]`` by a context: ``(1 + gamma) * x + beta``.

    ``gamma, beta = affine(context)`` (Perez et al. 2018, arXiv 1709.07871, equation 2, with 1 added so that a context
    of zeros starts near the identity). The context is a buffer of zeros, which CAVIA's inner loop replaces.

    Args:
        channels: of the features.
        size: context parameters.
    """

    def __init__(self, channels: int, size: int = 100):
        super().__init__()
        self.affine = nn.Linear(size, 2 * channels)
        self.register_buffer("context", torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, channels, ...]`` to the same."""
        gamma, beta = self.affine(self.context).view(2, -1, *[1] * (x.dim() - 2)).unbind()
        return (1 + gamma) * x + beta


class FiLMConv4(Conv4):
    """``Conv4`` with a FiLM layer before the activation of some blocks: a network for CAVIA.

    Zintgraf et al. 2019 (arXiv 1810.03642, and the authors' published code): 100 context parameters, pooling before
    FiLM.

    Args:
        ways, in_channels, hidden, image_size, track_running_stats: as for ``Conv4``.
        context: context parameters of each FiLM layer.
        film_blocks: which of the four blocks, counted from 0, have one.

    Raises:
        ValueError: another number in ``film_blocks``; what ``Conv4`` raises.
    """

    def __init__(
        self,
        ways: int = 5,
        in_channels: int = 3,
        hidden: int = 64,
        image_size: int | Sequence[int] = 84,
        track_running_stats: bool = False,
        context: int = 100,
        film_blocks: Collection[int] = (2,),
    ):
        if not film_blocks or not set(film_blocks) <= set(range(BLOCKS)):
            raise ValueError(f"expected film_blocks among 0 to {BLOCKS - 1}; got {film_blocks!r}. Name at least one")
        super().__init__(ways, in_channels, hidden, image_size, track_running_stats)
        for i in film_blocks:
            block = self.features[i]
            film = FiLM(hidden, context)
            self.features[i] = nn.Sequential(
                OrderedDict(conv=block.conv, norm=block.norm, pool=block.pool, film=film, relu=block.relu)
            )
