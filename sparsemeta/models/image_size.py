"""The image size a model is built for: checked once when it is built and at the door of ``forward``."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def pooled_size(image_size: int | Sequence[int], poolings: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """``(h, w)`` of the input and what ``poolings`` 2x2 max-poolings leave of it.

    Raises ``ValueError`` for anything but an int or two, and where nothing would be left.
    """
    given = tuple(image_size) if isinstance(image_size, Sequence) else (image_size, image_size)
    least = 2**poolings
    if len(given) != 2 or not all(isinstance(side, int) and side >= least for side in given):
        raise ValueError(
            f"image_size must be an int or (height, width), each at least {least} ({poolings} poolings by 2); "
            f"got {image_size!r}. Resize the images"
        )
    height, width = given
    return (height, width), (height >> poolings, width >> poolings)


def check_images(x: Tensor, expected: tuple[int, int, int]) -> None:
    """Raise ``ValueError`` unless ``x`` is ``[N, *expected]``."""
    if x.ndim != 4 or x.shape[1:] != expected:
        channels, height, width = expected
        raise ValueError(
            f"expected images of shape [N, {channels}, {height}, {width}]; got {list(x.shape)}. "
            "Resize the images, or build the model with their in_channels=... and image_size=..."
        )
