"""CAVIA: only context parameters adapt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..models.film import FiLM
from .maml import MAML


class CAVIA(MAML):
    """Fast context adaptation via meta-learning (Zintgraf et al. 2019, arXiv 1810.03642, section 3).

    The inner loop moves context parameters alone, which are zero at the start of every task; the outer loop moves all
    parameters of the model. So ``clone.weights`` is the context.

    Args:
        model: one with a context, such as ``sm.models.FiLMConv4``.
        lr, options: as for ``MAML``.
        context: names of the buffers that are context; None for those of all ``FiLM`` layers.

    Raises:
        ValueError: no such buffer, or no ``FiLM`` layer.
    """

    def __init__(self, model: nn.Module, lr: Any = 0.01, context: Sequence[str] | None = None, **options: Any):
        self.context = context_names(model) if context is None else list(context)
        buffers = dict(model.named_buffers())
        if not self.context or not set(self.context) <= buffers.keys():
            raise ValueError(
                f"expected a model with context, or context to name buffers of it; got {self.context} of the buffers "
                f"{sorted(buffers)}. Use sm.models.FiLMConv4, or put sm.models.FiLM layers into the model"
            )
        super().__init__(model, lr, **options)

    def start(self) -> dict[str, Tensor]:
        """The context, at zero."""
        model = self.module
        return {name: torch.zeros_like(model.get_buffer(name)).requires_grad_() for name in self.context}


def context_names(model: nn.Module) -> list[str]:
    """Names of the context of every ``FiLM`` layer."""
    layers = ((name, layer) for name, layer in model.named_modules() if isinstance(layer, FiLM))
    return [f"{name}.context" if name else "context" for name, _ in layers]
