"""ResNet-12, the residual backbone of the few-shot literature."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from sparsemeta.models.conv_norm import conv_norm
from sparsemeta.models.image_size import check_images, pooled_size
from sparsemeta.nn import Residual


def residual_block(in_channels: int, out_channels: int, track_running_stats: bool) -> Residual:
    """Three 3x3 convolutions beside a 1x1 shortcut; activation after the sum, then 2x2 max-pooling.

    `[N, in_channels, H, W]` to `[N, out_channels, H // 2, W // 2]`.
    """
    layer = partial(conv_norm, track_running_stats=track_running_stats)
    return Residual(
        layer(in_channels, out_channels, 3, act=nn.LeakyReLU(0.1)),
        layer(out_channels, out_channels, 3, act=nn.LeakyReLU(0.1)),
        layer(out_channels, out_channels, 3),
        shortcut=layer(in_channels, out_channels, 1),
        act=nn.LeakyReLU(0.1),
        pool=nn.MaxPool2d(2),
    )


class ResNet12(nn.Module):
    """Four residual blocks of three 3x3 convolutions, global average pooling, one linear layer.

    The form of Lee et al. 2019 (MetaOptNet, arXiv 1904.03758, section 4.1; there with DropBlock, which is left out)
    after Oreshkin et al. 2018 (TADAM, arXiv 1805.10123): LeakyReLU(0.1), 1x1 shortcuts with batch norm. Batch norm
    uses the statistics of the batch at hand unless ``track_running_stats=True``. Parameters are named
    ``blocks.0.conv1.conv.weight``, ``blocks.0.shortcut.norm.bias``, ... to ``head.bias``.

    Args:
        ways: classes of a task, the width of the output.
        in_channels: channels of an image.
        widths: filters of each residual block; one block, and one pooling by 2, for each entry.
        image_size: side of the images in pixels, or ``(height, width)``; at least ``2 ** len(widths)``.
        track_running_stats: keep running statistics in the batch norms, and use them in ``eval()``.

    Raises:
        ValueError: ``image_size`` too small; in ``forward``, images of another shape than the model's.
    """

    def __init__(
        self,
        ways: int = 5,
        in_channels: int = 3,
        widths: Sequence[int] = (64, 160, 320, 640),
        image_size: int | Sequence[int] = 84,
        track_running_stats: bool = False,
    ):
        super().__init__()
        (height, width), _ = pooled_size(image_size, poolings=len(widths))
        self.image_shape = (in_channels, height, width)
        channels = [in_channels, *widths]
        self.blocks = nn.Sequential(
            *(residual_block(i, o, track_running_stats) for i, o in zip(channels, channels[1:], strict=False))
        )
        self.head = nn.Linear(channels[-1], ways)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[N, in_channels, height, width]`` to logits ``[N, ways]``."""
        check_images(x, self.image_shape)
        return self.head(self.blocks(x).mean((2, 3)))
