"""Block-sparse convolution as implicit GEMM over tables of kept blocks; README.md beside it derives what is done here.

A table has one row `[FIELDS]` for each kept b x b matrix of weights at one tap: (first target channel, first source
channel, source row offset, source column offset, position of the matrix in `values`).
"""

from __future__ import annotations

import triton
import triton.language as tl

FIELDS = tl.constexpr(5)
BLOCK_SIZES = (16, 32, 64)


def gather_tiles(block: int, precision: str) -> list[dict[str, int]]:
    """Target pixels of a program, source channels of a step, launch options: the guess, and what may be faster.

    None spills a register. Strict float32 has no room for another.
    """
    strict = precision == "ieee"  # plain multiply-adds, all unrolled
    pixels, channels = 64 if strict or block == 64 else 128, 16 if strict else min(block, 32)
    guess = {"BLOCK_M": pixels, "BLOCK_C": channels, "num_warps": 4, "num_stages": 4 if block == 16 else 3}
    return [guess] if strict else [guess, {**guess, "num_warps": 8}]


def weight_grad_tiles(block: int, precision: str) -> list[dict[str, int]]:
    """Pixels of a step and launch options."""
    warps = 8 if block == 64 and precision != "ieee" else 4
    return [{"BLOCK_K": 32 if block == 64 else 64, "num_warps": warps, "num_stages": 4 if block == 16 else 3}]


@triton.jit
def images_and_pixels(o_m, height, width):
    """Image, row and column of flat pixels."""
    o_row = o_m // width
    return (o_row // height).to(tl.int64), o_row % height, o_m % width


@triton.jit
def tile_of(p_first, o_rest, LAST: tl.constexpr):
    """Pointers `p_first + o_rest`, `[channels, pixels]`, with the lanes of a warp along the channels if they are LAST.

    Where rows of pixels end the compiler cannot see, and ties it breaks differently in each version. Told that all
    pixels are contiguous it puts the lanes along them; and told of no alignment, it makes no wider load of that.
    """
    p_tile = p_first + o_rest
    if not LAST:
        p_tile = tl.multiple_of(tl.max_contiguous(p_tile, [1, p_tile.shape[1]]), [1, 1])
    return p_tile


@triton.jit
def gather_conv2d(
    p_source, p_values, p_bias, p_target, p_starts, p_table,
    source_height, source_width, target_height, target_width, phase_height, phase_width, pixels, channel_blocks, rows,
    source_task, source_image, source_channel, source_row, source_column,
    target_task, target_image, target_channel, target_row, target_column,
    values_task, bias_task,
    SOURCE_STEP_H: tl.constexpr, SOURCE_STEP_W: tl.constexpr, TARGET_STEP_H: tl.constexpr, TARGET_STEP_W: tl.constexpr,
    WEIGHT_K: tl.constexpr, WEIGHT_N: tl.constexpr, HAS_BIAS: tl.constexpr, LAST: tl.constexpr,
    B: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr, PRECISION: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """Forward pass and input gradient: every target pixel gathers from the kept blocks of its row of the table.

    One program for each tile of pixels, row (phase and block of target channels) and task.
    """
    i_row, i_m, i_t = tl.program_id(0) % rows, tl.program_id(0) // rows, tl.program_id(1).to(tl.int64)
    i_phase, i_n = i_row // channel_blocks, i_row % channel_blocks
    o_b, o_c = tl.arange(0, B), tl.arange(0, BLOCK_C)
    o_m = i_m * BLOCK_M + tl.arange(0, BLOCK_M)
    o_image, o_h, o_w = images_and_pixels(o_m, phase_height, phase_width)
    o_source_h, o_source_w = o_h * SOURCE_STEP_H, o_w * SOURCE_STEP_W
    p_source += i_t * source_task + o_image * source_image + o_source_h * source_row + o_source_w * source_column
    p_values += i_t * values_task
    p_weight = p_values + o_c[:, None] * WEIGHT_K + o_b[None, :] * WEIGHT_N  # [BLOCK_C, B]

    acc = tl.zeros([BLOCK_M, B], tl.float32)
    if HAS_BIAS:
        acc += tl.load(p_bias + i_t * bias_task + i_n * B + o_b).to(tl.float32)[None, :]
    STEPS: tl.constexpr = B // BLOCK_C
    for i_step in range(tl.load(p_starts + i_row) * STEPS, tl.load(p_starts + i_row + 1) * STEPS):
        p_entry = p_table + i_step // STEPS * FIELDS
        part = i_step % STEPS * BLOCK_C
        channel, at = tl.multiple_of(tl.load(p_entry + 1), B), tl.load(p_entry + 4)
        if WEIGHT_K == 1 or WEIGHT_N == 1:  # a block at one tap: no weights of other taps lie between its own
            at = tl.multiple_of(at, B)
        channel, at = channel + part, at + part * WEIGHT_K
        dh, dw = tl.load(p_entry + 2), tl.load(p_entry + 3)
        h, w = o_source_h + dh, o_source_w + dw
        m_source = (o_m < pixels) & (h >= 0) & (h < source_height) & (w >= 0) & (w < source_width)
        p_x = p_source + dh * source_row + dw * source_column  # [BLOCK_M]
        p_x = tile_of(p_x[None, :], (channel + o_c)[:, None] * source_channel, LAST)
        b_x = tl.load(p_x, mask=m_source[None, :], other=0.0)  # [BLOCK_C, BLOCK_M]
        b_w = tl.load(p_weight + at)  # [BLOCK_C, B]
        if WIDEN:
            b_x, b_w = b_x.to(tl.float32), b_w.to(tl.float32)
        acc = tl.dot(tl.trans(b_x), b_w, acc, input_precision=PRECISION)

    o_h = o_h * TARGET_STEP_H + i_phase // TARGET_STEP_W
    o_w = o_w * TARGET_STEP_W + i_phase % TARGET_STEP_W
    p_y = p_target + i_t * target_task + o_image * target_image + o_h * target_row + o_w * target_column
    p_y = tile_of(p_y[None, :], (i_n * B + o_b)[:, None] * target_channel, LAST)
    m_target = (o_m < pixels) & (o_h < target_height) & (o_w < target_width)
    tl.store(p_y, tl.trans(acc).to(p_target.dtype.element_ty), mask=m_target[None, :])  # [B, BLOCK_M]


@triton.jit
def weight_grad_conv2d(
    p_g, p_x, p_partial, p_table,
    height, width, out_height, out_width, pixels, split, blocks,
    g_task, g_image, g_channel, g_row, g_column, x_task, x_image, x_channel, x_row, x_column,
    partial_split, partial_task,
    STEP_H: tl.constexpr, STEP_W: tl.constexpr, WEIGHT_O: tl.constexpr, WEIGHT_I: tl.constexpr,
    G_LAST: tl.constexpr, X_LAST: tl.constexpr,
    B: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """Weight gradient: one program for each kept block, split of the output's pixels (`split` long) and task."""
    i_block, i_split, i_t = tl.program_id(0) % blocks, tl.program_id(0) // blocks, tl.program_id(1).to(tl.int64)
    p_entry = p_table + i_block * FIELDS
    to, channel = tl.multiple_of(tl.load(p_entry), B), tl.multiple_of(tl.load(p_entry + 1), B)
    dh, dw = tl.load(p_entry + 2), tl.load(p_entry + 3)
    o_b = tl.arange(0, B)
    p_g += i_t * g_task + (to + o_b)[:, None] * g_channel  # [B out, 1]
    p_x += i_t * x_task + (channel + o_b)[:, None] * x_channel  # [B in, 1]

    acc = tl.zeros([B, B], tl.float32)
    end = tl.minimum((i_split + 1) * split, pixels)
    for i_k in range(i_split * split, end, BLOCK_K):
        o_k = i_k + tl.arange(0, BLOCK_K)
        o_image, o_h, o_w = images_and_pixels(o_k, out_height, out_width)
        h, w = o_h * STEP_H + dh, o_w * STEP_W + dw
        m_k = o_k < end
        m_x = m_k & (h >= 0) & (h < height) & (w >= 0) & (w < width)
        p_b_g = tile_of(p_g, (o_image * g_image + o_h * g_row + o_w * g_column)[None, :], G_LAST)
        p_b_x = tile_of(p_x, (o_image * x_image + h * x_row + w * x_column)[None, :], X_LAST)
        b_g = tl.load(p_b_g, mask=m_k[None, :], other=0.0)  # [B out, BLOCK_K]
        b_x = tl.load(p_b_x, mask=m_x[None, :], other=0.0)  # [B in, BLOCK_K]
        if WIDEN:
            b_g, b_x = b_g.to(tl.float32), b_x.to(tl.float32)
        acc = tl.dot(b_g, tl.trans(b_x), acc, input_precision=PRECISION)  # [B out, B in]

    p_partial += i_split.to(tl.int64) * partial_split + i_t * partial_task + tl.load(p_entry + 4)
    p_partial += o_b[:, None] * WEIGHT_O + o_b[None, :] * WEIGHT_I
    tl.store(p_partial, acc.to(p_partial.dtype.element_ty))


@triton.jit
def sum_splits(p_partial, p_sum, count, splits, BLOCK: tl.constexpr):
    """`[splits, count] -> [count]`, always in the same order: split after split."""
    o_n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    m_n = o_n < count
    acc = tl.zeros([BLOCK], tl.float32)
    p_partial += o_n
    for _ in range(splits):
        acc += tl.load(p_partial, mask=m_n, other=0.0)
        p_partial += count
    tl.store(p_sum + o_n, acc.to(p_sum.dtype.element_ty), mask=m_n)
