"""The tables of kept blocks that the Triton kernels walk: built once for each pattern, geometry and device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..pattern import Pattern


@dataclass(frozen=True)
class Table:
    """Rows of kept blocks, one row for each phase and block of target channels.

    Attributes:
        starts: int32 `[rows + 1]`, where each row begins in `entries`.
        entries: int32 `[taps, 5]`: first target channel, first source channel, offset of the source row and column,
            and position of the b x b weights in `values`.
        phases: steps of the target's pixels; more than one in the input gradient of a strided convolution.
        stream: on which both were allocated.
    """

    starts: Tensor
    entries: Tensor
    phases: tuple[int, int]
    stream: int

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.starts) - 1

    def on_stream(self) -> Table:
        """Itself, for a launch on the current stream: should the pattern go, the memory stays until that is over."""
        if _stream(self.starts.device) != self.stream:
            for t in (self.starts, self.entries):
                t.record_stream(torch.cuda.current_stream(t.device))
        return self


def weight_strides(pattern: Pattern) -> tuple[int, int]:
    """Steps in `values` from one output channel, and from one input channel, of a block to the next."""
    _, inner, height, width = pattern.block
    return inner * height * width, height * width


def forward_table(conv, device: torch.device) -> Table:
    """Rows of output channels: source pixel = stride * target pixel + offset."""
    return conv.pattern.cached(_key("forward", conv, device), lambda: _forward(conv, device)).on_stream()


def transposed_table(conv, device: torch.device) -> Table:
    """Rows of input channels for each phase of the stride: source pixel = target pixel // stride + offset."""
    return conv.pattern.cached(_key("transposed", conv, device), lambda: _transposed(conv, device)).on_stream()


def _key(kind: str, conv, device: torch.device) -> tuple:
    return "triton", kind, conv.stride, conv.padding, conv.dilation, device


def _forward(conv, device: torch.device) -> Table:
    o, i, h, w, at = _taps(conv)
    b = conv.pattern.block[0]
    return _table(o // b, conv.pattern.shape[0] // b, (o, i, h, w, at), (1, 1), device)


def _transposed(conv, device: torch.device) -> Table:
    """A tap reaches the pixels of one phase only: those that the stride leads to (kernels/README.md)."""
    o, i, h, w, at = _taps(conv)
    b, (step_h, step_w) = conv.pattern.block[0], conv.stride
    blocks = conv.pattern.shape[1] // b
    row = (h % step_h * step_w + w % step_w) * blocks + i // b
    offsets = (h % step_h - h) // step_h, (w % step_w - w) // step_w
    return _table(row, step_h * step_w * blocks, (i, o, *offsets, at), conv.stride, device)


def _taps(conv) -> tuple[Tensor, ...]:
    """First output and input channel, offset of the tap in padded rows and columns, and position, of each b x b."""
    out, inner, height, width = conv.pattern.block
    blocks = conv.pattern.index.view(-1, out * inner, height * width)
    o, i, r, s = torch.unravel_index(blocks[:, 0].flatten(), conv.pattern.shape)
    first = torch.arange(0, conv.pattern.nnz, out * inner * height * width)
    at = (first.view(-1, 1) + torch.arange(height * width)).flatten()
    return o, i, r * conv.dilation[0] - conv.padding[0], s * conv.dilation[1] - conv.padding[2], at


def _table(row: Tensor, rows: int, fields: tuple[Tensor, ...], phases: tuple[int, int], device: torch.device) -> Table:
    entries = torch.stack(fields, 1)[row.argsort(stable=True)]
    starts = torch.zeros(rows + 1, dtype=torch.int64)
    starts[1:] = torch.bincount(row, minlength=rows).cumsum(0)
    starts, entries = starts.to(device, torch.int32), entries.to(device, torch.int32).contiguous()
    return Table(starts, entries, phases, _stream(device))


def _stream(device: torch.device) -> int:
    """The current one of a GPU."""
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
