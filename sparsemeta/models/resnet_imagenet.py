"""The ImageNet family of residual networks with basic blocks: ResNet-18, 26 and 34."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from sparsemeta.models.conv_norm import conv_norm
from sparsemeta.models.image_size import check_images, pooled_size
from sparsemeta.models.resnet_cifar import initialise, residual_stages

BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 26: (3, 3, 3, 3), 34: (3, 4, 6, 3)}


class ResNetImageNet(nn.Module):
    """ResNet-18 and 34 of He et al. 2016 (arXiv 1512.03385, table 1), and ResNet-26 between them as in E-LTH.

    A 7x7 convolution of stride 2 and 3x3 max-pooling, four stages of basic blocks, global average pooling, one linear
    layer. Shortcuts, batch norms, initialisation and names as in `ResNetCifar`.

    Args:
        depth: 10, 18, 26 or 34.
        classes: the width of the output.
        in_channels: channels of an image.
        widths: filters of each stage.
        image_size: side of the images in pixels, or ``(height, width)``; at least 32.

    Raises:
        ValueError: another depth, or ``image_size`` too small; in ``forward``, images of another shape.
    """

    def __init__(
        self, depth: int = 18, classes: int = 1000, in_channels: int = 3, widths: Sequence[int] = (64, 128, 256, 512),
        image_size: int | Sequence[int] = 224,
    ):  # fmt: skip  one name a line would be longer than the rest
        super().__init__()
        if depth not in BLOCKS:
            raise ValueError(f"expected depth to be one of {', '.join(map(str, BLOCKS))}; got {depth!r}")
        if len(widths) != 4:
            raise ValueError(f"expected one width for each of the four stages, got {tuple(widths)}")
        size, _ = pooled_size(image_size, poolings=5)
        self.image_shape = (in_channels, *size)
        self.stem = conv_norm(in_channels, widths[0], 7, stride=2, act=nn.ReLU())
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = residual_stages(widths[0], widths, BLOCKS[depth])
        self.head = nn.Linear(widths[-1], classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[N, in_channels, height, width]`` to logits ``[N, classes]``."""
        check_images(x, self.image_shape)
        return self.head(self.stages(self.pool(self.stem(x))).mean((2, 3)))
