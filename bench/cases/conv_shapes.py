"""Convolutions of the few-shot backbones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .choices import check_names


@dataclass(frozen=True)
class ConvShape:
    """A square convolution without bias.

    Attributes:
        batch, in_channels, out_channels, size, kernel, stride: images `[batch, in_channels, size, size]`, weight
            `(out_channels, in_channels, kernel, kernel)`.
        input_grad: whether the backward pass has to give it; not for a first layer.
        padding: on each side. None: as the backbones do it, so that odd kernels keep the size, over the stride.

    Raises:
        ValueError: a number below 1, or a negative padding.
    """

    batch: int = 25
    in_channels: int = 64
    out_channels: int = 64
    size: int = 42
    kernel: int = 3
    stride: int = 1
    input_grad: bool = True
    padding: int | None = None

    def __post_init__(self) -> None:
        for name in ("batch", "in_channels", "out_channels", "size", "kernel", "stride"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"expected {name} to be at least 1, got {value}")
        if self.padding is None:
            object.__setattr__(self, "padding", self.kernel // 2)
        if self.padding < 0 or self.size + 2 * self.padding < self.kernel:
            raise ValueError(f"expected padding with which the kernel fits into the image, got {self.padding}")

    @classmethod
    def parse(cls, text: str) -> ConvShape:
        """Of `"25x64x42x42:64:3:1:1"`: images, output channels, kernel, and if they are told stride and padding."""
        found = re.fullmatch(r"(\d+)x(\d+)x(\d+)x\3:(\d+):(\d+)(?::(\d+))?(?::(\d+))?", text.strip())
        if not found:
            raise ValueError(
                f"expected a shape like 25x64x42x42:64:3:1:1 (square images, output channels, kernel, stride, "
                f"padding), got {text!r}"
            )
        batch, channels, size, out, kernel, stride, padding = (None if n is None else int(n) for n in found.groups())
        return cls(batch, channels, out, size, kernel, 1 if stride is None else stride, padding=padding)

    @property
    def weight(self) -> tuple[int, int, int, int]:
        """Shape of the weight."""
        return self.out_channels, self.in_channels, self.kernel, self.kernel

    def __str__(self) -> str:
        stride = f"/{self.stride}" if self.stride > 1 else ""
        stride += f", padding {self.padding}" if self.padding != self.kernel // 2 else ""
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


def chosen(names: Sequence[str], custom: Sequence[str] = (), quick: bool = False) -> list[ConvShape]:
    """Shapes of the named sets, then those that `ConvShape.parse` reads from `custom`; quick: the first of each set.

    Raises:
        ValueError: an unknown name, `"custom"` without a shape or a shape without it, or a shape that is none.
    """
    check_names("shape", names, [*SHAPES, "custom"])
    if bool(custom) != ("custom" in names):
        raise ValueError("expected --shapes custom and --custom 25x64x42x42:64:3:1:1 together, got one of the two")
    own = [ConvShape.parse(text) for text in custom]
    sets = (SHAPES.get(name, own) for name in names)
    return [shape for members in sets for shape in (members[:1] if quick else members)]
