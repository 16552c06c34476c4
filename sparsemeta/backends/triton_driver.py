"""Whether Triton can run here, and how operands are laid out for its kernels."""

from __future__ import annotations

import functools
import importlib.util
import os

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels, in NumPy, because TRITON_INTERPRET=1 was set at the start."""
    return os.environ.get("TRITON_INTERPRET", "0") not in ("", "0", "false", "off", "no")


@functools.cache  # looking for it takes longer than a launch
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def missing() -> list[str]:
    """Why this installation cannot run them, and what to do."""
    if not _installed():
        return ["Triton is not installed (pip install triton)"]
    if not torch.cuda.is_available() and not interpreted():
        return ["PyTorch finds no CUDA device (set TRITON_INTERPRET=1 before the start to interpret the kernels)"]
    return []


def reasons(*tensors: Tensor) -> list[str]:
    """Why these operands cannot be run."""
    found, first = missing(), tensors[0]
    if any(t.device.type != "cuda" for t in tensors) and not interpreted():
        found.append(f"it needs CUDA tensors, got {first.device}")
    if first.dtype not in DTYPES or any(t.dtype != first.dtype for t in tensors):
        found.append(f"it needs all float32, float16 or bfloat16, got {', '.join(str(t.dtype) for t in tensors)}")
    return found


def allow_tf32() -> bool:
    """Whether float32 convolutions may round to TF32, by PyTorch's own setting for cuDNN."""
    cudnn = torch.backends.cudnn
    return cudnn.conv.fp32_precision == "tf32" if hasattr(cudnn, "conv") else cudnn.allow_tf32  # torch 2.9 and before


def channels_last(t: Tensor) -> bool:
    """Whether the channels of `[T?, N, C, H, W]` are next to one another in memory."""
    return t.stride(-3) == 1 and t.shape[-3] > 1


def like(t: Tensor, channels: int, height: int, width: int, dtype: torch.dtype | None = None) -> Tensor:
    """Uninitialised `[T?, N, channels, height, width]` with the channels where `t` has them: last or not."""
    if channels_last(t):
        return t.new_empty(*t.shape[:-3], height, width, channels, dtype=dtype).movedim(-1, -3)
    return t.new_empty(*t.shape[:-3], channels, height, width, dtype=dtype)


def tasks(t: Tensor) -> int:
    """Number of tasks of `[T?, N, C, H, W]`."""
    return t.shape[0] if t.dim() == 5 else 1
