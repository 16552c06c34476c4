"""`p - lr * g` of all parameters and tasks in one launch: README.md says how a program finds its parameter."""

from __future__ import annotations

import triton
import triton.language as tl

BLOCK = 1024  # elements of a program
LIMIT = 64  # parameters of a launch: their addresses are its arguments, of which there is room for 4 KB


@triton.jit
def inner_update(
    p_params, p_grads, p_outs, p_rates, numbers,
    SIZES: tl.constexpr, REPEATS: tl.constexpr, COUNTS: tl.constexpr, FROM_ZEROS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Tuples of pointers, and of numbers; element i has the rate `p_rates[k][i // REPEATS[k] % COUNTS[k]]`.

    COUNTS[k] is 0 where the rate is `numbers[k]`. With FROM_ZEROS the params are not read.
    """
    i_block, first = tl.program_id(0), 0
    p_p, p_g, p_out, p_rate, lr = p_params[0], p_grads[0], p_outs[0], p_rates[0], numbers[0]
    begin, size, repeat, count = 0, SIZES[0], REPEATS[0], COUNTS[0]
    for k in tl.static_range(1, len(SIZES)):
        first += (SIZES[k - 1] + BLOCK - 1) // BLOCK
        here = i_block >= first
        p_p, p_g = tl.where(here, p_params[k], p_p), tl.where(here, p_grads[k], p_g)
        p_out, p_rate = tl.where(here, p_outs[k], p_out), tl.where(here, p_rates[k], p_rate)
        lr, begin, size = tl.where(here, numbers[k], lr), tl.where(here, first, begin), tl.where(here, SIZES[k], size)
        repeat, count = tl.where(here, REPEATS[k], repeat), tl.where(here, COUNTS[k], count)
    o_n = (i_block - begin) * BLOCK + tl.arange(0, BLOCK)
    m_n = o_n < size
    m_rate = o_n < tl.where(count > 0, size, 0)
    b_lr = tl.load(p_rate + o_n // repeat % tl.maximum(count, 1), mask=m_rate, other=0.0).to(tl.float32) + lr
    b_new = -b_lr * tl.load(p_g + o_n, mask=m_n, other=0.0).to(tl.float32)
    if not FROM_ZEROS:
        b_new += tl.load(p_p + o_n, mask=m_n, other=0.0).to(tl.float32)
    tl.store(p_out + o_n, b_new.to(p_out.dtype.element_ty), mask=m_n)
