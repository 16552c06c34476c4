"""What identifies a measured time: the pass, its shapes and, on a GPU, the device and where the channels are."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, get_num_threads

from .triton_driver import allow_tf32, channels_last
from .tune_store import Key


def gpu_of(t: Tensor) -> str:
    """Name of the GPU that `t` is on; empty on a CPU."""
    return _name(t.get_device()) if t.is_cuda else ""


def capturing() -> bool:
    """Whether a CUDA graph is being captured: nothing can be measured then."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


@functools.cache
def _name(device: int) -> str:
    return torch.cuda.get_device_name(device)


def conv_key(operation: str, images: tuple[int, ...], conv, first: Tensor) -> Key:
    """Of a pass of a convolution whose first operand is `first`; made once for each pattern and geometry."""
    geometry = conv.stride, conv.padding, conv.dilation, conv.groups
    gpu = gpu_of(first)
    facts = (0, gpu, _layout(first), _products(first)) if gpu else (get_num_threads(),)

    def made() -> Key:
        pattern = conv.pattern
        density = float(f"{pattern.nnz / pattern.numel:.2g}")
        kind = str(first.dtype).removeprefix("torch.")
        return Key(operation, images, pattern.shape, pattern.block, density, *geometry, kind, *facts)

    return conv.pattern.cached((operation, images, *geometry, first.dtype, *facts), made)


def norm_key(x: Tensor, pool: int) -> Key:
    """Of `norm_act_pool`, forward and backward together."""
    kind, size = str(x.dtype).removeprefix("torch."), (x.shape[-3],)
    geometry = (pool, pool), (0,) * 4, (1, 1), 1
    return Key("norm_act_pool", tuple(x.shape), size, (1,), 1.0, *geometry, kind, 0, gpu_of(x), _layout(x))


def _layout(t: Tensor) -> str:
    return "channels_last" if channels_last(t) else ""


def _products(t: Tensor) -> str:
    return ("tf32" if allow_tf32() else "ieee") if t.dtype == torch.float32 else ""
