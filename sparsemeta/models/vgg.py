"""VGG for small images, with batch norm."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from sparsemeta.models.conv_norm import conv_norm
from sparsemeta.models.image_size import check_images, pooled_size
from sparsemeta.models.resnet_cifar import initialise

LAYERS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class VGG(nn.Module):
    """VGG-11, 13, 16 and 19 (Simonyan and Zisserman 2015, arXiv 1409.1556, table 1) in the form used on CIFAR.

    Each 3x3 convolution is followed by batch norm and ReLU, each stage by 2x2 max-pooling; global average pooling and
    one linear layer take the place of the three. Convolutions are initialised by He et al. 2015, since the paper's own
    initialisation needs a pre-trained shallower network. Batch norms keep running statistics. Parameters are named
    ``stages.0.0.conv.weight``, ``stages.0.0.norm.bias``, ... to ``head.bias``.

    Args:
        depth: 11, 13, 16 or 19.
        classes: the width of the output.
        in_channels: channels of an image.
        widths: filters of each stage.
        image_size: side of the images in pixels, or ``(height, width)``; at least 32.

    Raises:
        ValueError: another depth, or ``image_size`` too small; in ``forward``, images of another shape.
    """

    def __init__(
        self, depth: int = 16, classes: int = 10, in_channels: int = 3,
        widths: Sequence[int] = (64, 128, 256, 512, 512), image_size: int | Sequence[int] = 32,
    ):  # fmt: skip  one name a line would be longer than the rest
        super().__init__()
        if depth not in LAYERS:
            raise ValueError(f"expected depth to be one of {', '.join(map(str, LAYERS))}; got {depth!r}")
        if len(widths) != 5:
            raise ValueError(f"expected one width for each of the five stages, got {tuple(widths)}")
        size, _ = pooled_size(image_size, poolings=5)
        self.image_shape = (in_channels, *size)
        ends = zip((in_channels, *widths), widths, LAYERS[depth], strict=False)
        self.stages = nn.Sequential(*(_stage(before, width, layers) for before, width, layers in ends))
        self.head = nn.Linear(widths[-1], classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[N, in_channels, height, width]`` to logits ``[N, classes]``."""
        check_images(x, self.image_shape)
        return self.head(self.stages(x).mean((2, 3)))


def _stage(in_channels: int, width: int, layers: int) -> nn.Sequential:
    """Layers ``0``, ``1``, ... and a pooling, which has no parameters and so is no unit."""
    before = [in_channels] + [width] * (layers - 1)
    return nn.Sequential(*(conv_norm(channels, width, 3, act=nn.ReLU()) for channels in before), nn.MaxPool2d(2))
