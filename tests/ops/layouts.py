"""Ways for the elements `[..., N, C, H, W]` of an operand to lie in memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Draw = Callable[..., Tensor]  # sizes -> random tensor


def _sliced(draw: Draw, *lead: int) -> Tensor:
    *lead, c, h, w = lead
    return draw(*lead, c + 2, h + 3, 2 * w + 1)[..., 1:-1, 2:-1, 1::2]


def _negated(draw: Draw, *size: int) -> Tensor:
    """A view that owes a minus sign: the memory holds the opposite of the elements."""
    part = draw(*size)
    return torch.complex(part, part).conj().imag


LAYOUTS: dict[str, Callable[..., Tensor]] = {
    "contiguous": lambda draw, *size: draw(*size),
    "channels_last": lambda draw, *size: draw(*size[:-3], *size[-2:], size[-3]).movedim(-1, -3),
    "transposed": lambda draw, *size: draw(*size[:-2], size[-1], size[-2]).mT,
    "batch_last": lambda draw, *size: draw(*size[1:], size[0]).movedim(-1, 0),
    "sliced": _sliced,
    "negated": _negated,
    "one_image": lambda draw, *size: draw(*size[-3:]).expand(size),  # the batch has stride 0
    "one_pixel": lambda draw, *size: draw(*size[:-2], 1, 1).expand(size),  # as from a mean over pixels
    "scalar": lambda draw, *size: draw().expand(size),  # as from y.sum()
}
