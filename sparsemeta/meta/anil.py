"""ANIL: only the head adapts."""

from __future__ import annotations

from typing import Any

from torch import nn

from .maml import MAML


class ANIL(MAML):
    """Almost no inner loop (Raghu et al. 2020, arXiv 1909.09157): the inner loop moves only the head.

    The outer loop moves all of the model, with the exact gradient of the body through the head's inner steps.

    Args:
        model, lr, options: as for ``MAML``.
        head: name of the module whose parameters adapt; None for the last one that has parameters.

    Raises:
        ValueError: no parameters there; what ``MAML`` raises.
    """

    def __init__(self, model: nn.Module, lr: Any = 0.01, head: str | None = None, **options: Any):
        super().__init__(model, lr, adapt_only=split_at_head(model, head)[1], **options)


def split_at_head(model: nn.Module, head: str | None) -> tuple[list[str], list[str]]:
    """Names of the parameters outside and inside ``head``; None for the last module that has parameters.

    Raises ``ValueError`` where one of the two would be empty.
    """
    names = [name for name, _ in model.named_parameters()]
    if head is None:
        head = names[-1].rpartition(".")[0] if names else ""
    inside = [name for name in names if name.startswith(f"{head}.")]
    if not inside or len(inside) == len(names):
        modules = sorted({name.rpartition(".")[0] for name in names})
        raise ValueError(
            f"expected head to name a module with some of the model's parameters; got {head!r}, with {len(inside)} of "
            f"{len(names)}. Name one of {modules}"
        )
    return [name for name in names if name not in inside], inside
