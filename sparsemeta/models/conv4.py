"""Conv-4, the four-block backbone of MAML and Matching Networks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from sparsemeta.models.image_size import check_images, pooled_size

BLOCKS = 4


def conv_block(in_channels: int, out_channels: int, track_running_stats: bool) -> nn.Sequential:
    """3x3 convolution, batch norm, ReLU, 2x2 max-pooling: half the height and width, rounded down."""
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(in_channels, out_channels, 3, padding=1),
            norm=nn.BatchNorm2d(out_channels, track_running_stats=track_running_stats),
            relu=nn.ReLU(),
            pool=nn.MaxPool2d(2),
        )
    )


class Conv4(nn.Module):
    """Four blocks of 3x3 convolution, batch norm, ReLU and 2x2 max-pooling, then one linear layer.

    The backbone of Vinyals et al. 2016 (arXiv 1606.04080, section 4.1) in the form that MAML uses (Finn et al.
    2017, arXiv 1703.03400, section 5.2). Batch norm uses the statistics of the batch at hand, as MAML does, unless
    ``track_running_stats=True``. Parameters are named ``features.0.conv.weight`` to ``head.bias``.

    Args:
        ways: classes of a task, the width of the output.
        in_channels: channels of an image.
        hidden: filters of each convolution (64; MAML takes 32 on miniImageNet).
        image_size: side of the images in pixels, or ``(height, width)``; at least 16.
        track_running_stats: keep running statistics in the batch norms, and use them in ``eval()``.

    Raises:
        ValueError: ``image_size`` below 16; in ``forward``, images of another shape than the model's.
    """

    def __init__(
        self,
        ways: int = 5,
        in_channels: int = 3,
        hidden: int = 64,
        image_size: int | Sequence[int] = 84,
        track_running_stats: bool = False,
    ):
        super().__init__()
        (height, width), (pooled_height, pooled_width) = pooled_size(image_size, poolings=BLOCKS)
        self.image_shape = (in_channels, height, width)
        widths = [in_channels] + [hidden] * BLOCKS
        self.features = nn.Sequential(
            *(conv_block(i, o, track_running_stats) for i, o in zip(widths, widths[1:], strict=False))
        )
        self.head = nn.Linear(hidden * pooled_height * pooled_width, ways)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[N, in_channels, height, width]`` to logits ``[N, ways]``."""
        check_images(x, self.image_shape)
        return self.head(self.features(x).flatten(1))
