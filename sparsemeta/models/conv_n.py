"""Conv-N, the plain few-shot backbones beside Conv-4."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from sparsemeta.models.conv4 import conv_block
from sparsemeta.models.image_size import check_images, pooled_size

POOLED = 4  # blocks; the ones after them keep height and width


class ConvN(nn.Module):
    """N blocks of 3x3 convolution, batch norm and ReLU, the first four with 2x2 max-pooling, then one linear layer.

    Conv-4, Conv-6 and deeper (Chen et al. 2019, arXiv 1904.04232, appendix); ``blocks=4`` is `Conv4`, name for name and
    number for number. Initialised as PyTorch does; batch norm uses the statistics of the batch at hand unless
    ``track_running_stats=True``. Parameters are named ``features.0.conv.weight`` to ``head.bias``.

    Args:
        blocks: N, at least 1.
        ways: classes of a task, the width of the output.
        in_channels: channels of an image.
        hidden: filters of each convolution.
        image_size: side of the images in pixels, or ``(height, width)``; at least 16, less for fewer than 4 blocks.
        track_running_stats: keep running statistics in the batch norms, and use them in ``eval()``.

    Raises:
        ValueError: no block, or ``image_size`` too small; in ``forward``, images of another shape than the model's.
    """

    def __init__(
        self, blocks: int = 6, ways: int = 5, in_channels: int = 3, hidden: int = 64,
        image_size: int | Sequence[int] = 84, track_running_stats: bool = False,
    ):  # fmt: skip  one name a line would be longer than the rest
        super().__init__()
        if not isinstance(blocks, int) or blocks < 1:
            raise ValueError(f"expected blocks to be an integer of at least 1; got {blocks!r}")
        size, (height, width) = pooled_size(image_size, poolings=min(blocks, POOLED))
        self.image_shape = (in_channels, *size)
        layers = [conv_block(hidden if n else in_channels, hidden, track_running_stats) for n in range(blocks)]
        for layer in layers[POOLED:]:
            del layer.pool
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(hidden * height * width, ways)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[N, in_channels, height, width]`` to logits ``[N, ways]``."""
        check_images(x, self.image_shape)
        return self.head(self.features(x).flatten(1))
