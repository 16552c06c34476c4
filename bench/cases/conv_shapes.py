"""Convolutions of the few-shot backbones."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class ConvShape:
    """A square convolution without bias, padded as the backbones do it.

    Attributes:
        batch, in_channels, out_channels, size, kernel, stride: images `[batch, in_channels, size, size]`, weight
            `(out_channels, in_channels, kernel, kernel)`.
        input_grad: whether the backward pass has to give it; not for a first layer.

    Raises:
        ValueError: a number below 1.
    """

    batch: int = 25
    in_channels: int = 64
    out_channels: int = 64
    size: int = 42
    kernel: int = 3
    stride: int = 1
    input_grad: bool = True

    def __post_init__(self) -> None:
        for field in fields(self)[:-1]:
            if (value := getattr(self, field.name)) < 1:
                raise ValueError(f"expected {field.name} to be at least 1, got {value}")

    @property
    def padding(self) -> int:
        """On each side: for odd kernels the output has the size of the input, over the stride."""
        return self.kernel // 2

    @property
    def weight(self) -> tuple[int, int, int, int]:
        """Shape of the weight."""
        return self.out_channels, self.in_channels, self.kernel, self.kernel

    def __str__(self) -> str:
        stride = f"/{self.stride}" if self.stride > 1 else ""
        images = f"{self.batch}x{self.in_channels}x{self.size}x{self.size}"
        return f"{images} to {self.out_channels}, {self.kernel}x{self.kernel}{stride}"


# Support sets (25 images of 5-way 5-shot, 5 of 1-shot) and query sets (75), of 84x84 and of 28x28 images. The first of
# each set is its headline.
SHAPES = {
    "conv4": (
        *(ConvShape(25, size=size) for size in (42, 21, 10)),
        *(ConvShape(batch, size=14) for batch in (5, 75)),
        ConvShape(75, size=7),
        ConvShape(25, in_channels=3, size=84, input_grad=False),
    ),
    "resnet12": (
        *(ConvShape(25, width, width, size) for width, size in ((160, 21), (320, 10), (640, 5))),
        ConvShape(25, 160, 320, 21, kernel=1),
    ),
}
