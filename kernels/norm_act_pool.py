"""Batch norm on batch statistics, (leaky) ReLU and max-pooling, with first and second derivatives (README.md).

Images are `[T, N, C, H, W]` in memory, or with LAST `[T, N, H, W, C]`. What is summed over a channel is summed by one
program for each split of its pixels, and then over the splits in their order; the results are rows `[T * C]`.
"""

from __future__ import annotations

import triton
import triton.language as tl

ELEMENTS = 1024  # of a program's tile
SPLITS = 128  # at most: one program adds them all at once
ROWS = 16  # of the programs that do
PASSES = tl.constexpr(4)  # of a code: the activation passes the element whole; the lower bits say which it is
COEFFICIENTS = 7


def tile(channels: int, last: bool) -> dict[str, int]:
    """Channels and pixels of a program: the long side along the memory."""
    wide = min(64, triton.next_power_of_2(channels)) if last else 1
    return {"BLOCK_C": wide, "BLOCK_M": ELEMENTS // wide}


@triton.jit
def places(i_t, o_c, o_m, images, channels, plane, LAST: tl.constexpr):
    """Where the pixels `o_m` (of all images in one row) of the channels `o_c` are: `[BLOCK_C, BLOCK_M]`."""
    first = i_t * images * channels * plane
    if LAST:
        return first + o_m.to(tl.int64)[None, :] * channels + o_c[:, None]
    image = (o_m // plane).to(tl.int64)
    return first + (image * channels * plane + o_m % plane)[None, :] + o_c[:, None] * plane


@triton.jit
def cells_of(o_m, height, width, POOL: tl.constexpr):
    """The cell of each pixel (of all images in one row), which element of it that is, and whether there is one."""
    o_h, o_w = o_m // width % height, o_m % width
    rows, columns = height // POOL, width // POOL
    o_r, o_q = o_h // POOL, o_w // POOL
    image = o_m // (height * width)
    return (image * rows + o_r) * columns + o_q, o_h % POOL * 2 + o_w % POOL, (o_r < rows) & (o_q < columns)


@triton.jit
def selected(p_g, p_code, o_cell, m_cell, which, slope):
    """What of the cells' gradients reaches the element `which` of each."""
    code = tl.load(p_code + o_cell, mask=m_cell, other=0).to(tl.int32)
    b_g = tl.load(p_g + o_cell, mask=m_cell, other=0.0).to(tl.float32)
    return tl.where((code & 3) == which, tl.where((code & PASSES) != 0, b_g, b_g * slope), 0.0)


@triton.jit
def row_of(p_row, i_t, o_c, channels):
    """One number for each channel: `[BLOCK_C, 1]`."""
    return tl.load(p_row + i_t * channels + o_c, mask=o_c < channels, other=0.0).to(tl.float32)[:, None]


@triton.jit
def moments(
    p_x, p_partial, images, channels, plane, pixels, split, channel_blocks, rows,
    LAST: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Mean, and sum of squares about it, of each split of each channel: `[splits, 2, rows]`."""
    i_c, i_split = tl.program_id(0) % channel_blocks, tl.program_id(0) // channel_blocks
    i_t = tl.program_id(1).to(tl.int64)
    o_c = i_c * BLOCK_C + tl.arange(0, BLOCK_C)
    end = tl.minimum((i_split + 1) * split, pixels)
    count = tl.zeros([BLOCK_M], tl.float32)
    mean, squares = tl.zeros([BLOCK_C, BLOCK_M], tl.float32), tl.zeros([BLOCK_C, BLOCK_M], tl.float32)
    for i_m in range(i_split * split, end, BLOCK_M):
        o_m = i_m + tl.arange(0, BLOCK_M)
        m_x = (o_c < channels)[:, None] & (o_m < end)[None, :]
        b_x = tl.load(p_x + places(i_t, o_c, o_m, images, channels, plane, LAST), mask=m_x, other=0.0).to(tl.float32)
        count += (o_m < end).to(tl.float32)
        apart = tl.where(m_x, b_x - mean, 0.0)
        mean += apart * (1.0 / tl.maximum(count, 1.0))[None, :]
        squares += apart * (b_x - mean)
    total = tl.sum(mean * count[None, :], 1) / (end - i_split * split)
    apart = mean - total[:, None]
    p_partial += i_split * 2 * rows + i_t * channels + o_c
    tl.store(p_partial, total, mask=o_c < channels)
    tl.store(p_partial + rows, tl.sum(squares + count[None, :] * apart * apart, 1), mask=o_c < channels)


@triton.jit
def statistics(
    p_partial, p_mean, p_rstd, rows, pixels, split, splits, eps, SPLITS: tl.constexpr, BLOCK_R: tl.constexpr
):
    """Mean and 1 / deviation of each row from its `moments`."""
    o_s, o_r = tl.arange(0, SPLITS), tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    m_s = (o_s < splits)[:, None] & (o_r < rows)[None, :]
    p_partial += o_s[:, None] * 2 * rows + o_r[None, :]
    count = tl.maximum(tl.minimum(split, pixels - o_s * split), 0).to(tl.float32)[:, None]
    means = tl.load(p_partial, mask=m_s, other=0.0)  # [SPLITS, BLOCK_R]
    mean = tl.sum(means * count, 0) / pixels
    apart = tl.where(m_s, means - mean[None, :], 0.0)
    squares = tl.sum(tl.load(p_partial + rows, mask=m_s, other=0.0) + count * apart * apart, 0)
    tl.store(p_mean + o_r, mean, mask=o_r < rows)
    tl.store(p_rstd + o_r, 1.0 / tl.sqrt_rn(squares / pixels + eps), mask=o_r < rows)


@triton.jit
def norm_act_pool(
    p_x, p_weight, p_bias, p_mean, p_rstd, p_y, p_code, images, channels, height, width, cells, channel_blocks, slope,
    POOL: tl.constexpr, LAST: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Outputs, and the code of which element each of them is: one program for each tile of cells."""
    i_c, i_m = tl.program_id(0) % channel_blocks, tl.program_id(0) // channel_blocks
    i_t = tl.program_id(1).to(tl.int64)
    o_c, o_m = i_c * BLOCK_C + tl.arange(0, BLOCK_C), i_m * BLOCK_M + tl.arange(0, BLOCK_M)
    rows, columns = height // POOL, width // POOL
    m_y = (o_c < channels)[:, None] & (o_m < cells)[None, :]
    scale = row_of(p_weight, i_t, o_c, channels) * row_of(p_rstd, i_t, o_c, channels)
    shift = row_of(p_bias, i_t, o_c, channels) - row_of(p_mean, i_t, o_c, channels) * scale
    o_first = (o_m // columns * POOL) % (rows * POOL) * width + o_m % columns * POOL
    o_first += o_m // (rows * columns) * height * width  # the pixel at the top left of each cell
    best, code = tl.full([BLOCK_C, BLOCK_M], float("-inf"), tl.float32), tl.zeros([BLOCK_C, BLOCK_M], tl.int32)
    for k in tl.static_range(POOL * POOL):
        o_x = places(i_t, o_c, o_first + k // 2 * width + k % 2, images, channels, height * width, LAST)
        z = tl.load(p_x + o_x, mask=m_y, other=0.0).to(tl.float32) * scale + shift
        better = (z > best) | (z != z)  # of equal ones the first, of what is no number the last
        best, code = tl.where(better, z, best), tl.where(better, k, code)
    cut = best <= 0
    y = tl.where(cut, tl.where(slope == 0, 0.0, best * slope), best)
    o_y = places(i_t, o_c, o_m, images, channels, rows * columns, LAST)
    tl.store(p_y + o_y, y.to(p_y.dtype.element_ty), mask=m_y)
    tl.store(p_code + o_y, tl.where(cut, code, code + PASSES).to(tl.uint8), mask=m_y)


@triton.jit
def gradient_sums(
    p_g, p_code, p_x, p_v, p_mean, p_rstd, p_partial,
    images, channels, height, width, pixels, split, channel_blocks, rows, slope,
    SECOND: tl.constexpr, POOL: tl.constexpr, LAST: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Sums over each split of u and u n, and with SECOND of v, v n and u v: `[splits, 2 or 5, rows]`."""
    i_c, i_split = tl.program_id(0) % channel_blocks, tl.program_id(0) // channel_blocks
    i_t = tl.program_id(1).to(tl.int64)
    o_c = i_c * BLOCK_C + tl.arange(0, BLOCK_C)
    mean, rstd = row_of(p_mean, i_t, o_c, channels), row_of(p_rstd, i_t, o_c, channels)
    cells = (height // POOL) * (width // POOL)
    end = tl.minimum((i_split + 1) * split, pixels)
    u, un = tl.zeros([BLOCK_C, BLOCK_M], tl.float32), tl.zeros([BLOCK_C, BLOCK_M], tl.float32)
    v, vn, uv = u, u, u
    for i_m in range(i_split * split, end, BLOCK_M):
        o_m = i_m + tl.arange(0, BLOCK_M)
        m_x = (o_c < channels)[:, None] & (o_m < end)[None, :]
        o_x = places(i_t, o_c, o_m, images, channels, height * width, LAST)
        o_cell, which, inside = cells_of(o_m, height, width, POOL)
        o_cell = places(i_t, o_c, o_cell, images, channels, cells, LAST)
        b_u = selected(p_g, p_code, o_cell, m_x & inside[None, :], which[None, :], slope)
        b_n = tl.where(m_x, (tl.load(p_x + o_x, mask=m_x, other=0.0).to(tl.float32) - mean) * rstd, 0.0)
        u += b_u
        un += b_u * b_n
        if SECOND:
            b_v = tl.load(p_v + o_x, mask=m_x, other=0.0).to(tl.float32)
            v += b_v
            vn += b_v * b_n
            uv += b_u * b_v
    SUMS: tl.constexpr = 5 if SECOND else 2
    p_partial += i_split * SUMS * rows + i_t * channels + o_c
    tl.store(p_partial, tl.sum(u, 1), mask=o_c < channels)
    tl.store(p_partial + rows, tl.sum(un, 1), mask=o_c < channels)
    if SECOND:
        tl.store(p_partial + 2 * rows, tl.sum(v, 1), mask=o_c < channels)
        tl.store(p_partial + 3 * rows, tl.sum(vn, 1), mask=o_c < channels)
        tl.store(p_partial + 4 * rows, tl.sum(uv, 1), mask=o_c < channels)


@triton.jit
def sum_of(p_partial, i_sum, o_r, rows, splits, SUMS: tl.constexpr, SPLITS: tl.constexpr):
    """One of the sums over all splits: `[BLOCK_R]`."""
    o_s = tl.arange(0, SPLITS)
    m_s = (o_s < splits)[:, None] & (o_r < rows)[None, :]
    return tl.sum(tl.load(p_partial + (o_s[:, None] * SUMS + i_sum) * rows + o_r[None, :], mask=m_s, other=0.0), 0)


@triton.jit
def gradient_coefficients(
    p_partial, p_weight, p_rstd, p_v_weight, p_v_bias, p_grad_weight, p_grad_bias, p_coefficients, rows, pixels, splits,
    SECOND: tl.constexpr, SPLITS: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    """From the sums the gradients of weight and bias, and the coefficients `[7, rows]` of `combine` and `select`."""
    o_r = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    m_r = o_r < rows
    SUMS: tl.constexpr = 5 if SECOND else 2
    u = sum_of(p_partial, 0, o_r, rows, splits, SUMS, SPLITS)
    un = sum_of(p_partial, 1, o_r, rows, splits, SUMS, SPLITS)
    rstd = tl.load(p_rstd + o_r, mask=m_r, other=0.0)
    scale = tl.load(p_weight + o_r, mask=m_r, other=0.0).to(tl.float32) * rstd
    p_coefficients += o_r
    if SECOND:
        v = sum_of(p_partial, 2, o_r, rows, splits, SUMS, SPLITS) / pixels
        vn = sum_of(p_partial, 3, o_r, rows, splits, SUMS, SPLITS) / pixels
        uv = sum_of(p_partial, 4, o_r, rows, splits, SUMS, SPLITS)
        v_weight = tl.load(p_v_weight + o_r, mask=m_r, other=0.0).to(tl.float32)
        v_bias = tl.load(p_v_bias + o_r, mask=m_r, other=0.0).to(tl.float32)
        inner = uv - v * u - vn * un  # <v, Q u>
        u, un, squared = u / pixels, un / pixels, scale * rstd
        tl.store(p_grad_weight + o_r, (rstd * inner).to(p_grad_weight.dtype.element_ty), mask=m_r)
        tl.store(p_coefficients, squared * (un * v + vn * u) - v_weight * rstd * u, mask=m_r)
        by_n = squared * (2 * un * vn - inner / pixels) - v_weight * rstd * un
        tl.store(p_coefficients + rows, by_n, mask=m_r)
        tl.store(p_coefficients + 2 * rows, v_weight * rstd - squared * vn, mask=m_r)
        tl.store(p_coefficients + 3 * rows, -squared * un, mask=m_r)
        tl.store(p_coefficients + 4 * rows, v_bias - scale * v, mask=m_r)
        tl.store(p_coefficients + 5 * rows, v_weight - scale * vn, mask=m_r)
        tl.store(p_coefficients + 6 * rows, scale, mask=m_r)
    else:
        tl.store(p_grad_weight + o_r, un.to(p_grad_weight.dtype.element_ty), mask=m_r)
        tl.store(p_grad_bias + o_r, u.to(p_grad_bias.dtype.element_ty), mask=m_r)
        tl.store(p_coefficients, -scale * u / pixels, mask=m_r)
        tl.store(p_coefficients + rows, -scale * un / pixels, mask=m_r)
        tl.store(p_coefficients + 2 * rows, scale, mask=m_r)


@triton.jit
def combine(
    p_g, p_code, p_x, p_v, p_mean, p_rstd, p_coefficients, p_out,
    images, channels, height, width, pixels, channel_blocks, rows, slope,
    SECOND: tl.constexpr, POOL: tl.constexpr, LAST: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """`constant + by_n n + by_u u`, and with SECOND `+ by_v v`: the gradient of x."""
    i_c, i_m = tl.program_id(0) % channel_blocks, tl.program_id(0) // channel_blocks
    i_t = tl.program_id(1).to(tl.int64)
    o_c, o_m = i_c * BLOCK_C + tl.arange(0, BLOCK_C), i_m * BLOCK_M + tl.arange(0, BLOCK_M)
    m_x = (o_c < channels)[:, None] & (o_m < pixels)[None, :]
    o_x = places(i_t, o_c, o_m, images, channels, height * width, LAST)
    o_cell, which, inside = cells_of(o_m, height, width, POOL)
    o_cell = places(i_t, o_c, o_cell, images, channels, (height // POOL) * (width // POOL), LAST)
    b_u = selected(p_g, p_code, o_cell, m_x & inside[None, :], which[None, :], slope)
    b_n = tl.load(p_x + o_x, mask=m_x, other=0.0).to(tl.float32) - row_of(p_mean, i_t, o_c, channels)
    b_n *= row_of(p_rstd, i_t, o_c, channels)
    out = row_of(p_coefficients, i_t, o_c, channels) + row_of(p_coefficients + rows, i_t, o_c, channels) * b_n
    out += row_of(p_coefficients + 2 * rows, i_t, o_c, channels) * b_u
    if SECOND:
        b_v = tl.load(p_v + o_x, mask=m_x, other=0.0).to(tl.float32)
        out += row_of(p_coefficients + 3 * rows, i_t, o_c, channels) * b_v
    tl.store(p_out + o_x, out.to(p_out.dtype.element_ty), mask=m_x)


@triton.jit
def select(
    p_code, p_x, p_v, p_mean, p_rstd, p_coefficients, p_out,
    images, channels, height, width, cells, channel_blocks, rows, slope,
    POOL: tl.constexpr, LAST: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """`constant + by_n n + by_v v` at the elements that the outputs are: the second derivative, in g."""
    i_c, i_m = tl.program_id(0) % channel_blocks, tl.program_id(0) // channel_blocks
    i_t = tl.program_id(1).to(tl.int64)
    o_c, o_m = i_c * BLOCK_C + tl.arange(0, BLOCK_C), i_m * BLOCK_M + tl.arange(0, BLOCK_M)
    per_image, columns = (height // POOL) * (width // POOL), width // POOL
    m_y = (o_c < channels)[:, None] & (o_m < cells)[None, :]
    o_y = places(i_t, o_c, o_m, images, channels, per_image, LAST)
    code = tl.load(p_code + o_y, mask=m_y, other=0).to(tl.int32)
    o_first = o_m % per_image // columns * POOL * width + o_m % columns * POOL
    o_x = places(i_t, o_c, o_m // per_image * height * width + o_first, images, channels, height * width, LAST)
    o_x += ((code & 3) // 2 * width + code % 2) * (channels if LAST else 1)
    b_n = tl.load(p_x + o_x, mask=m_y, other=0.0).to(tl.float32) - row_of(p_mean, i_t, o_c, channels)
    b_n *= row_of(p_rstd, i_t, o_c, channels)
    b_v = tl.load(p_v + o_x, mask=m_y, other=0.0).to(tl.float32)
    out = row_of(p_coefficients + 4 * rows, i_t, o_c, channels)
    out += row_of(p_coefficients + 5 * rows, i_t, o_c, channels) * b_n
    out += row_of(p_coefficients + 6 * rows, i_t, o_c, channels) * b_v
    out = tl.where((code & PASSES) != 0, out, out * slope)
    tl.store(p_out + o_y, out.to(p_out.dtype.element_ty), mask=m_y)
