"""Characters that nobody has written: drawn by a seeded generator, so that few-shot learning needs no download."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy import ndarray

from sparsemeta.data.image_classes import ImageClasses

STROKES = 4  # most strokes of a character
ATTACHED = 0.7  # share of strokes that start on an earlier one
BOX = 0.7  # side of the square that every character fills, in image sides
TREMOR, SHIFT = 0.05, 0.06  # how far a drawing moves each control point and the whole at most, in image sides
SCALE, SLANT = 0.15, 0.2  # how much it stretches and slants at most
PEN = 0.022, 0.036  # thinnest and thickest pen's radius, in image sides
BATCH = 64  # drawings rendered together: few enough to stay in the processor's cache


def glyphs(classes: int = 200, per_class: int = 20, size: int = 28, seed: int = 0) -> ImageClasses:
    """Stroke characters in the manner of Omniglot: bright antialiased strokes on black.

    A class is a character of two to four cubic Bezier strokes, most of which start on an earlier one. Each drawing
    moves the control points a little, slants, stretches and shifts the whole and takes a pen of its own width; a stroke
    stays on the stroke that it starts on. In the spirit of the generative model of Lake et al. 2015.

    The same arguments give the same bytes on every machine (single IEEE operations, no BLAS, no transcendental
    functions), and class ``i`` is the same character for any number of ``classes``.

    Args:
        classes: number of classes.
        per_class: drawings of each class.
        size: height and width of the images in pixels.
        seed: of the characters and the drawings.

    Returns:
        ImageClasses: images uint8 ``[classes * per_class, 1, size, size]``, names ``glyph0000``, ...

    Raises:
        ValueError: a count or the size is below 1.
    """
    if min(classes, per_class, size) < 1:
        raise ValueError(f"classes, per_class and size must be at least 1; got {classes}, {per_class} and {size}")
    characters = _invent(np.random.default_rng([seed, 0]), classes)
    strokes, pens = _draw(np.random.default_rng([seed, 1]), characters, per_class)
    images = torch.from_numpy(_render(strokes, pens, size)).unsqueeze(1)
    labels = torch.arange(classes).repeat_interleave(per_class)
    return ImageClasses(images, labels, [f"glyph{i:04d}" for i in range(classes)])


@dataclass(frozen=True)
class _Characters:
    """K characters. Strokes are ``[K, drawings, STROKES, 4, 2]``: control points (x, y) in image sides."""

    strokes: ndarray  # [K, 1, STROKES, 4, 2]
    count: ndarray  # [K] strokes in use
    parent: ndarray  # [K, STROKES] the earlier stroke that a stroke starts on,
    place: ndarray  # [K, STROKES] where on it, from 0 to 1,
    attached: ndarray  # [K, STROKES] if it does

    def joined(self, strokes: ndarray) -> ndarray:
        """``strokes`` with each attached one starting on its parent, and the first in the place of unused ones."""
        strokes, every = strokes.copy(), np.arange(len(strokes))
        for s in range(1, STROKES):
            start = _on_curve(strokes[every, :, self.parent[:, s]], self.place[:, s, None])
            strokes[:, :, s, 0] = np.where(self.attached[:, s, None, None], start, strokes[:, :, s, 0])
            unused = (s >= self.count)[:, None, None, None]
            strokes[:, :, s] = np.where(unused, strokes[:, :, 0], strokes[:, :, s])
        return strokes


def _invent(rng: np.random.Generator, classes: int) -> _Characters:
    points, draws = np.split(rng.random((classes, STROKES, 13)), [8], axis=2)
    start, end, inner = np.split(points.reshape(classes, 1, STROKES, 4, 2), [1, 2], axis=3)
    bend, place, parent, attached, count = np.moveaxis(draws, 2, 0)
    chord = start + (end - start) * np.array([[1 / 3], [2 / 3]])
    inner = chord + bend[:, None, :, None, None] * (inner - chord)  # from straight to free
    parent = (parent * np.arange(STROKES)).astype(int)
    place = np.floor(place * 5) / 4  # starts, quarters, halves and ends, as in writing
    count = 2 + (count[:, 0] * (STROKES - 1)).astype(int)
    characters = _Characters(np.concatenate([start, inner, end], 3), count, parent, place, attached < ATTACHED)
    return replace(characters, strokes=_fill_box(characters.joined(characters.strokes)))


def _fill_box(strokes: ndarray) -> ndarray:
    """Each character as large as ``BOX`` in its longer direction, around (0, 0)."""
    points = np.stack([_on_curve(strokes, t) for t in np.linspace(0, 1, 9)])
    low, high = points.min((0, 3), keepdims=True)[0], points.max((0, 3), keepdims=True)[0]
    longer = (high - low).max(-1, keepdims=True)
    return (strokes - ((low + high) / 2)[..., None, :]) * (BOX / longer)[..., None, :]


def _draw(rng: np.random.Generator, characters: _Characters, per_class: int) -> tuple[ndarray, ndarray]:
    """Strokes ``[K * per_class, STROKES, 4, 2]`` in image sides and pen radii ``[K * per_class]``."""
    shape = len(characters.count), per_class
    draws = rng.random((*shape, STROKES * 8 + 8))
    tremor, draws = np.split(2 * draws - 1, [STROKES * 8], axis=2)
    strokes = characters.joined(characters.strokes + TREMOR * tremor.reshape(*shape, STROKES, 4, 2))
    scale_x, scale_y, size, slant_x, slant_y, shift_x, shift_y, pen = np.moveaxis(draws, 2, 0)[..., None, None]
    x, y = np.moveaxis(strokes, -1, 0)
    size = 1 + SCALE * size
    warped_x = size * ((1 + SCALE * scale_x) * x + SLANT * slant_x * y) + SHIFT * shift_x
    warped_y = size * ((1 + SCALE * scale_y) * y + SLANT * slant_y * x) + SHIFT * shift_y
    radii = PEN[0] + (PEN[1] - PEN[0]) * (pen + 1) / 2
    return np.stack([warped_x, warped_y], -1).reshape(-1, STROKES, 4, 2) + 0.5, radii.reshape(-1)


def _on_curve(strokes: ndarray, t: float | ndarray) -> ndarray:
    """Points ``[..., 2]`` at ``t`` of cubic Bezier curves ``[..., 4, 2]``."""
    u = 1 - t
    weights = u * u * u, 3 * u * u * t, 3 * u * t * t, t * t * t
    return sum(np.asarray(weight)[..., None] * strokes[..., i, :] for i, weight in enumerate(weights))


def _render(strokes: ndarray, radii: ndarray, size: int) -> ndarray:
    """uint8 images ``[M, size, size]``: ink fades over one pixel at the pen's distance from a stroke."""
    images = np.empty((len(strokes), size, size), np.uint8)
    for i in range(0, len(strokes), BATCH):
        distance = _distance(strokes[i : i + BATCH] * size, size)
        ink = radii[i : i + BATCH, None, None].astype(np.float32) * np.float32(size) + np.float32(0.5) - distance
        images[i : i + BATCH] = ink.clip(0, 1) * np.float32(255) + np.float32(0.5)
    return images


def _distance(strokes: ndarray, size: int) -> ndarray:
    """Pixels from each pixel's centre to the nearest of ``2 * size`` points on each stroke: ``[M, size, size]``."""
    points = np.concatenate([_on_curve(strokes, t) for t in np.linspace(0, 1, 2 * size)], axis=1)  # [M, points, 2]
    centres = np.arange(size, dtype=np.float32) + np.float32(0.5)
    offsets = np.square(points.astype(np.float32).T[..., None] - centres)  # [xy, points, M, size]
    nearest = np.full((len(strokes), size, size), np.inf, np.float32)
    for x, y in zip(*offsets, strict=True):
        np.minimum(nearest, y[:, :, None] + x[:, None, :], out=nearest)
    return np.sqrt(nearest)
