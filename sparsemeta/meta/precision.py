"""Mixed precision: the forward pass in bfloat16, everything that is kept in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .batch_norm import attributes_set


@contextmanager
def forward_in(model: nn.Module, precision: str) -> Iterator[None]:
    """Calls of ``model`` compute in ``precision`` for the time of the block, and give logits in the weights' type.

    With ``"bf16"`` the forward pass runs under ``torch.autocast``, so each operation's operands are rounded, and its
    derivatives follow; the weights that are called with, their gradients and what an inner update makes of them stay
    in float32. Losses are computed in float32.
    """
    if precision == "float32":
        yield
        return
    forward, device = model.forward, next(model.parameters()).device.type

    def in_bf16(*args: Any, **kwargs: Any) -> Tensor:
        with torch.autocast(device, torch.bfloat16):
            return forward(*args, **kwargs).float()

    with attributes_set([model], lambda _: {"forward": in_bf16}):
        yield
