"""The CIFAR family of residual networks: ResNet-20, 32, 44, 56, 110."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from sparsemeta.models.conv_norm import conv_norm
from sparsemeta.models.image_size import check_images, pooled_size
from sparsemeta.nn import Residual


def basic_block(in_channels: int, out_channels: int, stride: int = 1) -> Residual:
    """Two 3x3 convolutions beside the identity, or beside a 1x1 projection where the shape changes.

    `[N, in_channels, H, W]` to `[N, out_channels, H / stride, W / stride]`, rounded up.
    """
    same = stride == 1 and in_channels == out_channels
    return Residual(
        conv_norm(in_channels, out_channels, 3, stride, nn.ReLU()),
        conv_norm(out_channels, out_channels, 3),
        shortcut=nn.Identity() if same else conv_norm(in_channels, out_channels, 1, stride),
        act=nn.ReLU(),
    )


def residual_stages(in_channels: int, widths: Sequence[int], blocks: Sequence[int]) -> nn.Sequential:
    """``stages.<stage>.<block>``: the first block of every stage but the first halves height and width."""
    stages, before = [], in_channels
    for number, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        first = basic_block(before, width, stride=2 if number else 1)
        stages.append(nn.Sequential(first, *(basic_block(width, width) for _ in range(count - 1))))
        before = width
    return nn.Sequential(*stages)


def initialise(model: nn.Module) -> None:
    """Convolutions by He et al. 2015 (arXiv 1502.01852, eq. 10, fan out); batch norms stay at 1 and 0."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class ResNetCifar(nn.Module):
    """ResNet-(6D+2) of He et al. 2016 (arXiv 1512.03385, section 4.2): three stages of D residual blocks.

    Initialised as there; where the width changes there is a 1x1 projection (their option B). Batch norms keep running
    statistics, as supervised training wants them. Parameters are named ``stem.conv.weight``,
    ``stages.0.1.conv2.norm.bias``, ``stages.1.0.shortcut.conv.weight``, ... to ``head.bias``.

    Args:
        depth: 6D + 2: 20, 32, 44, 56, 110.
        classes: the width of the output.
        in_channels: channels of an image.
        widths: filters of each stage.
        image_size: side of the images in pixels, or ``(height, width)``; at least 4.

    Raises:
        ValueError: a depth that is not 6D + 2, or ``image_size`` too small; in ``forward``, images of another shape.
    """

    def __init__(
        self, depth: int = 20, classes: int = 10, in_channels: int = 3, widths: Sequence[int] = (16, 32, 64),
        image_size: int | Sequence[int] = 32,
    ):  # fmt: skip  one name a line would be longer than the rest
        super().__init__()
        if not isinstance(depth, int) or depth < 8 or (depth - 2) % 6:
            raise ValueError(f"expected depth to be 6D + 2 with D of at least 1, such as 20, 32 or 56; got {depth!r}")
        if len(widths) != 3:
            raise ValueError(f"expected one width for each of the three stages, got {tuple(widths)}")
        size, _ = pooled_size(image_size, poolings=2)
        self.image_shape = (in_channels, *size)
        self.stem = conv_norm(in_channels, widths[0], 3, act=nn.ReLU())
        self.stages = residual_stages(widths[0], widths, [(depth - 2) // 6] * 3)
        self.head = nn.Linear(widths[-1], classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[N, in_channels, height, width]`` to logits ``[N, classes]``."""
        check_images(x, self.image_shape)
        return self.head(self.stages(self.stem(x)).mean((2, 3)))
