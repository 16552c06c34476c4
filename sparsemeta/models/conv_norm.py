"""The layer that residual networks are made of."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def conv_norm(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, act: nn.Module | None = None,
    track_running_stats: bool = True,
) -> nn.Sequential:  # fmt: skip  one name a line would be longer than the rest
    """`conv`, without bias (the batch norm has one), `norm` and, if there is one, `act`.

    Height and width are divided by `stride`, rounded up.
    """
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)
    norm = nn.BatchNorm2d(out_channels, track_running_stats=track_running_stats)
    return nn.Sequential(OrderedDict(conv=conv, norm=norm) | ({} if act is None else {"act": act}))
