"""Images of a folder as a model is to see them, with the class of each where its folder names one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparsemeta.data.decode import Decoding
from sparsemeta.data.image_classes import Statistics
from sparsemeta.data.image_folder import is_image, opened


class LabelledImages(NamedTuple):
    """Images float32 ``[M, C, H, W]``, their paths, and their folder, None for those in no folder."""

    images: Tensor
    names: list[str]
    labels: list[str | None]


def read_images(root: Path, decoding: Mapping[str, Any], normalise: Statistics | None = None) -> LabelledImages:
    """All images below ``root``, a folder or archive, by name.

    Args:
        decoding: arguments of ``Decoding``, as a checkpoint keeps them.
        normalise: mean and standard deviation of each channel.

    Raises:
        FileNotFoundError: no such folder, or no image in it.
        ValueError: a file that is no image.
    """
    decode = Decoding(**{**decoding, "size": tuple(decoding["size"])})
    with opened(root) as files:
        paths = sorted(path for path in map(PurePosixPath, files.sizes) if is_image(path))
        if not paths:
            raise FileNotFoundError(f"expected images in {root}; got none. Pass the folder that holds them")
        pixels = [torch.from_numpy(decode(files.read(str(path))).copy()) for path in paths]
    images = torch.stack(pixels).permute(0, 3, 1, 2).contiguous().float() / 255
    if normalise is not None:
        mean, deviation = torch.tensor(normalise)[..., None, None]
        images = (images - mean) / deviation
    labels = [str(path.parent) if len(path.parts) > 1 else None for path in paths]
    return LabelledImages(images, [str(path) for path in paths], labels)
