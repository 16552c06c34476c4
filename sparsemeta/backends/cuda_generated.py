"""A convolution by a kernel made for its pattern: the taps are statements of its code, the values are read as ever."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from . import cuda_compile
from .cuda_compile import Kernel
from .cuda_driver import emulating, extension

MOST_PRODUCTS = 32768  # of a weight and a pixel in the code: minutes to compile (csrc/cuda/README.md)
SUMS = 128  # registers of a thread for these; it has 255
ROWS = 64  # output channels of a block at most (csrc/cuda/conv_index.h)


def generated_reasons(conv, device: torch.device) -> list[str]:
    """Why `way="generated"` cannot run this convolution there; the backend's own reasons come first."""
    found = [] if emulating() else cuda_compile.device_reasons(device)
    if not conv.pattern.nnz:
        found.append("it needs at least one kept weight")
    pixels = max(pixels_of(outputs)[0] for outputs in (conv.pattern.shape[0], conv.in_channels))
    if conv.pattern.nnz * pixels > MOST_PRODUCTS:
        got = f"{conv.pattern.nnz} kept weights x {pixels} pixels"
        found.append(f"it needs at most {MOST_PRODUCTS} products in its code, got {got}: that takes minutes to compile")
    return found


def pixels_of(outputs: int) -> tuple[int, ...]:
    """Of a thread, by preference, for a convolution with so many output channels."""
    rows = min(-(-outputs // 8) * 8, ROWS)
    return max(p for p in (8, 4, 2) if p == 2 or rows * p <= SUMS), 1


@dataclass(frozen=True)
class GeneratedConv:
    """The kernels of one plan, by element type: compiled when they are first needed."""

    kernels: dict[bool, Kernel] = field(default_factory=dict)

    def launch(self, plan: Any, blocks: int, argument: bytes, bf16: bool, where: tuple[int, int]) -> None:
        """Run; raises `RuntimeError` where it cannot be compiled or launched."""
        device, stream = where
        if bf16 not in self.kernels:
            defines = {"SPARSEMETA_ELEMENT": "Bf16" if bf16 else "float"}
            headers = extension().source_headers()
            self.kernels[bf16] = cuda_compile.load("masked_conv2d_generated", plan.source(), headers, defines, device)
        self.kernels[bf16].launch(blocks, plan.threads(), plan.shared_bytes(), argument, stream)
