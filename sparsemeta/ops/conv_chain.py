"""A few-shot network as one operation: inner loop and meta-gradient of a chain of blocks, without a graph.

A block is a masked convolution, batch norm on batch statistics (or none), (leaky) ReLU and 2x2 max-pooling (or none);
the head is a masked linear layer, the loss cross-entropy. Nothing of Python lies between the kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import backends
from ..pattern import Pattern
from .conv import Conv

ORDERS = ("none", "first", "second")


@dataclass(frozen=True)
class Block:
    """One block. `conv` has one group; `slope` is that of the activation for negative inputs; `pool` is 1 or 2."""

    conv: Conv
    bias: bool
    normalises: bool
    eps: float
    slope: float
    pool: int


@dataclass(frozen=True)
class Head:
    """The linear layer: kept positions of its weight `(ways, features)`, and whether it has a bias."""

    pattern: Pattern
    bias: bool


@dataclass(frozen=True)
class Outcome:
    """What a call gives: query `loss` and `accuracy` (0 to 1), float64 `[T]`; what was asked for of the rest.

    Attributes:
        gradient: meta-gradient `[parameters]`, mean over the tasks; `None` with order `"none"`.
        adapted: parameters after the inner loop, `[T, parameters]`.
        logits: of the queries, `[T, queries, ways]`.
    """

    loss: Tensor
    accuracy: Tensor
    gradient: Tensor | None
    adapted: Tensor
    logits: Tensor


class ConvChain:
    """The chain for images of one shape.

    Its parameters are one vector: for each block its kept weights, bias, gamma and beta, then those of the head.

    Args:
        blocks, head: what is computed; at least one block.
        image: `(C, H, W)`.
        dtype: float32 or float64.

    Raises:
        ValueError: blocks, head and image that do not fit one another.
    """

    def __init__(self, blocks: Sequence[Block], head: Head, image: tuple[int, int, int], dtype: torch.dtype):
        sizes = image_sizes(blocks, head, image)
        self.image, self.ways, self.dtype = tuple(image), head.pattern.shape[0], dtype
        self._blocks, self._head = tuple(blocks), head  # whose patterns own what the extension reads
        self._chain = backends.cpu.chain(blocks, head, sizes, dtype)

    @property
    def parameters(self) -> int:
        """Length of the vector of all parameters."""
        return self._chain.parameters

    @property
    def arena_bytes(self) -> int:
        """Memory that the threads keep from call to call."""
        return self._chain.arena_bytes()

    def run(
        self, theta: Tensor, rates: Tensor, support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor,
        steps: int, order: str,
    ) -> Outcome:
        """Adapt to each task, judge the queries, and differentiate back to `theta`.

        Args:
            theta, rates: `[parameters]`, where every task starts and its rates: `theta - rates * gradient` is a step.
            support_x, query_x: `[T, N, C, H, W]`.
            support_y, query_y: int64 `[T, N]`, below the number of ways.
            steps: of the inner loop, 0 or more.
            order: `"second"` (exact), `"first"` (inner gradients are constants), or `"none"`: no meta-gradient.

        Raises:
            ValueError: operands that do not belong together.
        """
        for name, images, labels in (("support", support_x, support_y), ("query", query_x, query_y)):
            self._check_batch(name, images, labels, len(support_x))
        self._check_vectors(theta, rates)
        if order not in ORDERS or steps < 0:
            raise ValueError(f"expected an order of {ORDERS} and steps >= 0, got {order!r} and {steps}")
        tensors = [t.contiguous() for t in (theta, rates, support_x, support_y, query_x, query_y)]
        results, *rest = backends.cpu.run_chain(self._chain, tensors, self.ways, steps, ORDERS.index(order))
        return Outcome(*results.unbind(1), *rest)

    def _check_batch(self, name: str, images: Tensor, labels: Tensor, tasks: int) -> None:
        if images.shape[2:] != self.image or images.shape[:2] != labels.shape or len(labels) != tasks or not tasks:
            raise ValueError(
                f"expected {name} images [T, N, {', '.join(map(str, self.image))}] and labels [T, N] of {tasks} tasks, "
                f"at least one; got {tuple(images.shape)} and {tuple(labels.shape)}"
            )
        if images.dtype != self.dtype or labels.dtype != torch.int64 or images.device.type != "cpu":
            raise ValueError(
                f"expected {name} images {self.dtype} on the CPU and labels int64; "
                f"got {images.dtype} on {images.device} and {labels.dtype}"
            )
        if not labels.numel() or labels.min() < 0 or labels.max() >= self.ways:
            raise ValueError(f"expected {name} labels from 0 to {self.ways - 1}, at least one; got {labels.tolist()}")

    def _check_vectors(self, *vectors: Tensor) -> None:
        for vector in vectors:
            if vector.shape != (self.parameters,) or vector.dtype != self.dtype:
                raise ValueError(
                    f"expected theta and rates {self.dtype} [{self.parameters}], "
                    f"got {vector.dtype} {tuple(vector.shape)}"
                )


def image_sizes(blocks: Sequence[Block], head: Head, image: tuple[int, int, int]) -> list[tuple[int, int]]:
    """Height and width at the entry of every block; raises `ValueError` where something does not fit."""
    channels, *size = image
    sizes = []
    for i, block in enumerate(blocks):
        if block.conv.in_channels != channels:
            raise ValueError(f"expected {channels} channels at block {i}, got a layer for {block.conv.in_channels}")
        sizes.append(tuple(size))
        channels, *size = block.conv.output_size(torch.empty(1, channels, *size, device="meta"))
        size = [side // block.pool for side in size]
        if 0 in size:
            raise ValueError(f"expected an image that block {i} can pool, got {image}; give larger images")
    features = channels * size[0] * size[1]
    if head.pattern.shape[1] != features:
        raise ValueError(f"expected a head for {features} features, got one for {head.pattern.shape[1]}")
    return sizes
