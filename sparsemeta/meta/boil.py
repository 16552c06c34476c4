"""BOIL: all but the head adapts."""

from __future__ import annotations

from typing import Any

from torch import nn

from .anil import split_at_head
from .maml import MAML


class BOIL(MAML):
    """Body only update in inner loop (Oh et al. 2021, arXiv 2008.08882): the head stays, all else adapts.

    The outer loop moves all of the model.

    Args:
        model, lr, options: as for ``MAML``.
        head: name of the module whose parameters do not adapt; None for the last one that has parameters.

    Raises:
        ValueError: no parameters there; what ``MAML`` raises.
    """

    def __init__(self, model: nn.Module, lr: Any = 0.01, head: str | None = None, **options: Any):
        super().__init__(model, lr, adapt_only=split_at_head(model, head)[0], **options)
