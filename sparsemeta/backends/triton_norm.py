"""Launches of the Triton kernels for batch norm, activation and pooling; tasks are an axis ahead of the images."""

from __future__ import annotations

import functools
from types import ModuleType

import torch
from torch import Tensor

from .triton_driver import channels_last, like, tasks

PROGRAMS = 1024  # that the sums of a launch are split into, whatever the device: they are the same bits on all


@functools.cache
def _kernels() -> ModuleType:
    from sparsemeta.kernels import norm_act_pool  # here, as in triton.py

    return norm_act_pool


def norm_act_pool(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float, pool: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`[T?, N, C, H, W]`, `[T?, C]`, `[T?, C]` -> `y, mean, 1 / deviation, code`; the statistics in float32."""
    kernels, x, weight, bias = _kernels(), _dense(x), _plain(weight), _plain(bias)
    height, width = (size // pool for size in x.shape[-2:])
    y, code = like(x, x.shape[-3], height, width), like(x, x.shape[-3], height, width, torch.uint8)
    mean, rstd = (torch.empty_like(weight, dtype=torch.float32) for _ in range(2))
    tile, layout = _tile(x)
    split, splits = _splits(x, tile)
    partial = mean.new_empty(splits, 2, mean.numel())
    blocks, sizes = _blocks(x, tile), (x.shape[-4], x.shape[-3])
    with torch.cuda.device_of(x):
        kernels.moments[blocks * splits, tasks(x)](
            x, partial, *sizes, x.shape[-2] * x.shape[-1], _pixels(x), split, blocks, mean.numel(), **layout
        )
        kernels.statistics[(-(-mean.numel() // kernels.ROWS),)](
            partial, mean, rstd, mean.numel(), _pixels(x), split, splits, eps, **_of_splits(splits)
        )
        kernels.norm_act_pool[blocks * -(-_pixels(y) // tile["BLOCK_M"]), tasks(x)](
            x, weight, bias, mean, rstd, y, code, *sizes, *x.shape[-2:], _pixels(y), blocks, slope, POOL=pool, **layout
        )
    return y, mean, rstd, code


def norm_act_pool_grad(
    g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor, code: Tensor, slope: float, pool: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias."""
    x, weight = _dense(x), _plain(weight)
    grad_weight, grad_bias = torch.empty_like(weight), torch.empty_like(weight)
    to = weight, weight, grad_weight, grad_bias  # the first two are not read
    launch = _Gradients(g, x, None, weight, mean, rstd, code, slope, pool)
    coefficients = launch.coefficients(*to)
    return launch.combine(coefficients), grad_weight, grad_bias


def norm_act_pool_grad_grad(
    v: Tensor, v_weight: Tensor, v_bias: Tensor, g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor,
    code: Tensor, slope: float, pool: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of g, x and weight for what comes back against the three outputs of `norm_act_pool_grad`."""
    x, weight = _dense(x), _plain(weight)
    grad_weight = torch.empty_like(weight)
    launch = _Gradients(g, x, v, weight, mean, rstd, code, slope, pool)
    coefficients = launch.coefficients(_plain(v_weight), _plain(v_bias), grad_weight, grad_weight)
    return launch.select(coefficients), launch.combine(coefficients), grad_weight


class _Gradients:
    """The launches that first (`v` is None) and second derivatives have in common; `x` is dense."""

    def __init__(self, g, x, v, weight, mean, rstd, code, slope, pool):
        last = channels_last(x)
        self.g, self.x, self.code = _laid(g, last), x, _laid(code, last)
        self.v, self.second = (x, False) if v is None else (_laid(v, last), True)
        self.weight, self.mean, self.rstd, self.slope = weight, _plain(mean), _plain(rstd), slope
        self.tile, layout = _tile(x)
        self.options = {"POOL": pool, **layout}
        self.blocks, self.rows = _blocks(x, self.tile), mean.numel()
        self.sizes = x.shape[-4], x.shape[-3], *x.shape[-2:]

    def coefficients(self, v_weight: Tensor, v_bias: Tensor, grad_weight: Tensor, grad_bias: Tensor) -> Tensor:
        """Those of `combine` and `select`, float32 `[7, rows]`; writes the gradients of weight and bias."""
        kernels, pixels, (split, splits) = _kernels(), _pixels(self.x), _splits(self.x, self.tile)
        partial = self.mean.new_empty(splits, 5 if self.second else 2, self.rows)
        found = self.mean.new_empty(kernels.COEFFICIENTS, self.rows)
        with torch.cuda.device_of(self.x):
            kernels.gradient_sums[self.blocks * splits, tasks(self.x)](
                self.g, self.code, self.x, self.v, self.mean, self.rstd, partial, *self.sizes, pixels, split,
                self.blocks, self.rows, self.slope, SECOND=self.second, **self.options,
            )  # fmt: skip
            kernels.gradient_coefficients[(-(-self.rows // kernels.ROWS),)](
                partial, self.weight, self.rstd, v_weight, v_bias, grad_weight, grad_bias, found, self.rows, pixels,
                splits, SECOND=self.second, **_of_splits(splits),
            )  # fmt: skip
        return found

    def combine(self, coefficients: Tensor) -> Tensor:
        """The gradient of x."""
        out = torch.empty_like(self.x)
        with torch.cuda.device_of(self.x):
            _kernels().combine[self._grid(out)](
                self.g, self.code, self.x, self.v, self.mean, self.rstd, coefficients, out, *self.sizes, _pixels(out),
                self.blocks, self.rows, self.slope, SECOND=self.second, **self.options,
            )  # fmt: skip
        return out

    def select(self, coefficients: Tensor) -> Tensor:
        """The gradient of g."""
        out = torch.empty_like(self.g)
        with torch.cuda.device_of(self.x):
            _kernels().select[self._grid(out)](
                self.code, self.x, self.v, self.mean, self.rstd, coefficients, out, *self.sizes, _pixels(out),
                self.blocks, self.rows, self.slope, **self.options,
            )  # fmt: skip
        return out

    def _grid(self, out: Tensor) -> tuple[int, int]:
        return self.blocks * -(-_pixels(out) // self.tile["BLOCK_M"]), tasks(out)


def _tile(x: Tensor) -> tuple[dict[str, int], dict[str, int | bool]]:
    last = channels_last(x)
    tile = _kernels().tile(x.shape[-3], last)
    return tile, {**tile, "LAST": last}


def _blocks(x: Tensor, tile: dict[str, int]) -> int:
    return -(-x.shape[-3] // tile["BLOCK_C"])


def _pixels(t: Tensor) -> int:
    return t.shape[-4] * t.shape[-2] * t.shape[-1]


def _splits(x: Tensor, tile: dict[str, int]) -> tuple[int, int]:
    """Pixels of one split, a multiple of the tile, and the number of splits: none is empty."""
    tiles, programs = -(-_pixels(x) // tile["BLOCK_M"]), _blocks(x, tile) * tasks(x)
    length = -(-tiles // min(_kernels().SPLITS, max(1, PROGRAMS // programs), tiles))
    return length * tile["BLOCK_M"], -(-tiles // length)


def _of_splits(splits: int) -> dict[str, int]:
    """Of the kernels that add them: a power of two that holds all."""
    return {"SPLITS": 1 << (splits - 1).bit_length(), "BLOCK_R": _kernels().ROWS}


def _dense(t: Tensor) -> Tensor:
    """Without gaps, the channels last or not, as they were."""
    return _laid(t, channels_last(t))


def _laid(t: Tensor, last: bool) -> Tensor:
    """Without gaps, the channels last or not."""
    return _plain(t.movedim(-3, -1)).movedim(-1, -3) if last else _plain(t)


def _plain(t: Tensor) -> Tensor:
    """Contiguous memory with the values themselves: no pending negation, no zeros that are only promised."""
    return (t.clone() if t._is_zerotensor() else t.resolve_neg()).contiguous()
