"""What CUDA kernels know of a pattern: a table for one pass and image size, made once and copied to the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .cuda_driver import extension, processors
from .cuda_generated import GeneratedConv, pixels_of

FORWARD, INPUT_GRAD, WEIGHT_GRAD = range(3)  # csrc/cuda/conv_table.h
PIXELS = 8, 2  # of a lane, by preference: large tiles load less, small ones keep more of the GPU busy


@dataclass(frozen=True)
class ConvTable:
    """The plan on the host, and the copy that kernels read.

    Attributes:
        generated: the kernels made for the pattern, if it is a plan for those.
        stream: on which the copy was allocated.
    """

    plan: Any
    words: Tensor
    generated: GeneratedConv | None
    stream: int

    def on_stream(self, where: tuple[int, int]) -> int:
        """Address, for a launch there: should the pattern go, its memory stays until that launch is over."""
        if where[1] != self.stream:
            self.words.record_stream(torch.cuda.current_stream())
        return self.words.data_ptr()

    def convolve(self, operands: tuple, tasks: int, images: int, bf16: bool, where: tuple[int, int]) -> None:
        """Launch forward or input gradient; `operands` as in `_CUDA.ConvPlan.convolve`, up to the strides of y."""
        if self.generated:
            argument = self.plan.generated_arguments(*operands, images)
            self.generated.launch(self.plan, self.plan.blocks(tasks, images), argument, bf16, where)
        else:
            self.plan.convolve(*operands, tasks, images, bf16, where)


def table_of(
    kind: int, conv, size: Sequence[int], tasks: int, images: int, device: torch.device, generated: bool = False
) -> ConvTable:
    """The table with the largest tiles that give every processor a block, or else the smallest."""
    outputs = conv.in_channels if kind == INPUT_GRAD else conv.pattern.shape[0]
    for pixels in pixels_of(outputs) if generated else PIXELS:
        table = one_table(kind, conv, size, pixels, device, generated)
        if table.plan.blocks(tasks, images) >= processors(device):
            break
    return table


def one_table(
    kind: int, conv, size: Sequence[int], pixels: int, device: torch.device, generated: bool = False
) -> ConvTable:
    """The table with tiles of `pixels` for each thread."""
    plan = tuple(size), conv.stride, conv.padding, conv.dilation, conv.groups, kind, pixels, generated
    return conv.pattern.cached(("cuda", device, *plan), lambda: _make_table(conv.pattern, plan, device))


def _make_table(pattern, arguments: tuple, device: torch.device) -> ConvTable:
    plan = extension().ConvPlan(pattern.index.data_ptr(), pattern.nnz, pattern.shape, *arguments)
    words = torch.empty(plan.words(), dtype=torch.int32)
    plan.copy_to(words.data_ptr())
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
    return ConvTable(plan, words.to(device), GeneratedConv() if plan.source() else None, stream)
