"""How ``inner_update`` is computed: PyTorch's fused operators, and a function closed under ``torch.func``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..backends import cpu, cuda, triton

ADDRESSABLE = (Tensor, torch.nn.Parameter)  # other tensor types may hold no memory of their own


def step(params: Sequence[Tensor], grads: Sequence[Tensor], rates: Sequence[float | Tensor]) -> Sequence[Tensor]:
    """``p_i - lr_i * g_i``.

    The fused operators cost a third of an autograd function's call, whatever its kernel, but have no vmap rule, and
    with several rates they are a launch for each parameter.
    """
    if not params:
        return ()
    many = grads[0].is_cuda and not one_number(rates)
    if torch._C._are_functorch_transforms_active() or (many and not triton.missing()):
        return InnerUpdate.apply(*params, *grads, *rates)
    return with_torch(params, grads, rates)


class InnerUpdate(torch.autograd.Function):
    """``p_i - lr_i * g_i`` for arguments ``*p, *g, *lr``; all p may be None and then stand for zeros.

    Linear in p and bilinear in (lr, g): its derivatives are made of InnerUpdate again, so every order of them exists.
    """

    @staticmethod
    def forward(*args: Any) -> tuple[Tensor, ...]:
        params, grads, rates = thirds(args)
        return tuple(kernel(params, grads, rates)(params, grads, rates))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        _, grads, rates = thirds(inputs)
        learned = [isinstance(lr, Tensor) for lr in rates]
        ctx.numbers = [None if tensor else lr for tensor, lr in zip(learned, rates, strict=True)]
        factors = [a if tensor else None for tensor, a in zip(2 * learned, (*grads, *rates), strict=True)]
        ctx.save_for_backward(*factors)
        ctx.save_for_forward(*factors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *v: Tensor | None) -> tuple:
        grads, rates = saved_factors(ctx)
        wanted = [u if needed else None for u, needed in zip(3 * v, ctx.needs_input_grad, strict=True)]
        v_params, v_grads, v_rates = thirds(wanted)
        to_rates = [
            None if u is None else -(g * u).sum_to_size(lr.shape)
            for g, u, lr in zip(grads, v_rates, rates, strict=True)
        ]
        return *v_params, *negated_products(rates, v_grads), *to_rates

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        grads, rates = saved_factors(ctx)
        d_params, d_grads, d_rates = thirds(tangents)
        terms = d_params, negated_products(rates, d_grads), negated_products(d_rates, grads)
        return tuple(total(term) for term in zip(*terms, strict=True))

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *args: Any) -> tuple:
        batched = [any(d is not None for d in dims) for dims in zip(*thirds(in_dims), strict=True)]
        ranks = [g.dim() - (d is not None) for g, d in zip(*(thirds(x)[1] for x in (args, in_dims)), strict=True)]
        spread = [
            batch_first(a, d, info.batch_size, rank) if many and isinstance(a, Tensor) else a
            for a, d, many, rank in zip(args, in_dims, 3 * batched, 3 * ranks, strict=True)
        ]
        return InnerUpdate.apply(*spread), tuple(0 if many else None for many in batched)


def thirds(args: Sequence) -> tuple[Sequence, Sequence, Sequence]:
    n = len(args) // 3
    return args[:n], args[n : 2 * n], args[2 * n :]


def saved_factors(ctx: Any) -> tuple[Sequence[Tensor | None], list[Any]]:
    """The grads and rates, the grads only where their rate is a tensor: no other derivative needs them."""
    n = len(ctx.numbers)
    grads, tensors = ctx.saved_tensors[:n], ctx.saved_tensors[n:]
    return grads, [number if lr is None else lr for lr, number in zip(tensors, ctx.numbers, strict=True)]


def negated_products(rates: Sequence, grads: Sequence) -> list[Tensor | None]:
    """``-lr_i * g_i``, or None where one of the two is None."""
    products: list[Tensor | None] = [None] * len(grads)
    there = [i for i, (lr, g) in enumerate(zip(rates, grads, strict=True)) if lr is not None and g is not None]
    if there:
        args = [None] * len(there) + [grads[i] for i in there] + [rates[i] for i in there]
        for i, product in zip(there, InnerUpdate.apply(*args), strict=True):
            products[i] = product
    return products


def total(terms: Sequence[Tensor | None]) -> Tensor | None:
    there = [t for t in terms if t is not None]
    return sum(there[1:], there[0]) if there else None


def batch_first(a: Tensor, dim: int | None, size: int, rank: int) -> Tensor:
    """``a`` as ``[size, *shape]`` with a shape of ``rank`` dimensions, so that it broadcasts from the right."""
    a = a.expand(size, *a.shape) if dim is None else a.movedim(dim, 0)
    return a.reshape(size, *[1] * (rank + 1 - a.dim()), *a.shape[1:])


def one_number(rates: Sequence) -> bool:
    return all(type(lr) is float and lr == rates[0] for lr in rates)


def with_torch(params: Sequence, grads: Sequence[Tensor], rates: Sequence) -> Sequence[Tensor]:
    from_zeros, lr = params[0] is None, rates[0]
    if one_number(rates):
        return torch._foreach_mul(grads, -lr) if from_zeros else torch._foreach_add(params, grads, alpha=-lr)
    steps = [lr * g for lr, g in zip(rates, grads, strict=True)]
    return torch._foreach_neg(steps) if from_zeros else torch._foreach_sub(params, steps)


def with_extension(params: Sequence, grads: Sequence[Tensor], rates: Sequence[float]) -> Sequence[Tensor]:
    outs = [torch.empty_like(g) for g in grads]
    addresses = [[0 if t is None else t.data_ptr() for t in tensors] for tensors in (params, grads, outs)]
    cpu.extension().inner_update(*addresses, [g.numel() for g in grads], rates, grads[0].dtype == torch.float64)
    return outs


def kernel(params: Sequence, grads: Sequence[Tensor], rates: Sequence) -> Callable[..., Sequence[Tensor]]:
    """What computes it: a backend where the tensors are plain memory of one dtype; Triton takes tensor rates too."""
    tensors, dtype = [t for t in (*params, *grads) if t is not None], grads[0].dtype
    plain = all(type(t) in ADDRESSABLE and t.dtype is dtype and t.is_contiguous() for t in tensors)
    numbers = all(type(lr) is float for lr in rates)
    if not plain:
        return with_torch
    if numbers and cpu.extension() and dtype in (torch.float32, torch.float64) and all(t.is_cpu for t in tensors):
        return with_extension
    if numbers and not cuda.reasons(*tensors):
        return cuda.inner_update
    tables = [lr for lr in rates if isinstance(lr, Tensor)]
    apart = not all(type(lr) in ADDRESSABLE for lr in tables) or (grads[0].is_cpu and not triton.interpreted())
    return with_torch if apart or triton.reasons(*tensors, *tables) else triton.inner_update
