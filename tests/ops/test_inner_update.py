"""inner_update against its definition, ``p - lr * g``."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, jvp, vmap

from sparsemeta.ops import inner_update_function
from sparsemeta.ops.inner_update import inner_update
from sparsemeta.ops.inner_update_function import InnerUpdate, negated_products, with_extension

SHAPES = (4, 3, 2), (5,), ()
RATES = ("number", "scalar tensor", "numbers", "tensors", "mixed")


def tensors(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in SHAPES]


def rates(kind: str) -> list:
    wide, row, scalar = (0.1 * t.detach().exp().requires_grad_() for t in tensors(2))
    return {
        "number": [0.3],
        "scalar tensor": [scalar],
        "numbers": [0.3, 0.2, 0.0],
        "tensors": [wide[:1, :, :1].detach().requires_grad_(), row, scalar],
        "mixed": [wide, 0.5, scalar],
    }[kind]


def definition(params: list, grads: list, lr) -> list[Tensor]:
    lr = lr if isinstance(lr, list) else [lr] * len(params)
    return [p - rate * g for p, g, rate in zip(params, grads, lr, strict=True)]


def flat(update):
    """``update`` as a function of three params, three grads and the rates."""
    return lambda *args: tuple(update(list(args[:3]), list(args[3:6]), list(args[6:]) if len(args) > 7 else args[6]))


@pytest.mark.parametrize("kind", RATES)
def test_derivatives_of_every_order_are_those_of_the_definition(kind):
    args = (*tensors(0), *tensors(1), *rates(kind))
    assert gradcheck(flat(inner_update), args, check_forward_ad=True)
    assert gradgradcheck(flat(inner_update), args)


def squared_gradient(update, where: tuple[int, ...]):
    """A scalar function with second derivatives of ``update`` in its gradient."""

    def loss(*args):
        return sum((t**3).sum() for t in update(*args))

    return lambda *args: sum((t**2).sum() for t in grad(loss, where)(*args))


@pytest.mark.parametrize("kind", RATES)
@pytest.mark.parametrize("mapped", [range(9), (3, 4, 5), (0,)], ids=["all", "grads", "one param"])
def test_torch_func_transforms_nest_in_any_order(kind, mapped):
    args = [a.detach() if isinstance(a, Tensor) else a for a in (*tensors(0), *tensors(1), *rates(kind))]
    where = tuple(i for i, a in enumerate(args) if isinstance(a, Tensor))
    dims = tuple(-1 if i in mapped and i in where else None for i in range(len(args)))
    args = [a if d is None else torch.stack([a, 2 * a, a + 1], -1) for a, d in zip(args, dims, strict=True)]

    def results(update):
        many = vmap(flat(update), dims)
        yield from many(*args)
        inside = squared_gradient(flat(update), where)
        yield from vmap(grad(inside, where), dims)(*args)
        outside = squared_gradient(many, where)
        yield from grad(outside, where)(*args)
        tangents = [torch.cos(args[i]) for i in where]

        def of_tensors(*a):
            return outside(*(dict(zip(where, a, strict=True)).get(i, args[i]) for i in range(len(args))))

        yield jvp(of_tensors, tuple(args[i] for i in where), tuple(tangents))[1]

    for got, expected in zip(results(inner_update), results(definition), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_container_of_params_is_kept():
    params, grads = tensors(0), tensors(1)
    expected = definition(params, grads, 0.1)
    assert isinstance(inner_update(tuple(params), grads, 0.1), tuple)
    named = inner_update(dict(zip("abc", params, strict=True)), {"c": grads[2], "a": grads[0], "b": grads[1]}, 0.1)
    assert list(named) == ["a", "b", "c"]
    for new in (inner_update(params, grads, 0.1), named.values()):
        for got, wanted in zip(new, expected, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-15, atol=1e-15)


def test_a_parameter_without_gradient_passes_unchanged():
    params, grads = tensors(0), tensors(1)
    new = inner_update(params, [grads[0], None, grads[2]], [0.1, torch.tensor(0.2), 0.3])
    assert new[1] is params[1]
    torch.testing.assert_close(new[2], params[2] - 0.3 * grads[2])
    assert inner_update([], [], 0.1) == []


def test_out_of_place():
    inputs = tensors(0) + tensors(1)
    before = [t.detach().clone() for t in inputs]
    inner_update(inputs[:3], inputs[3:], 0.1)
    assert all(torch.equal(a, b) for a, b in zip(inputs, before, strict=True))


def test_only_the_derivatives_asked_for_are_computed(monkeypatch):
    computed = []

    def counting(lr, grads):
        computed.append([g is not None for g in grads])
        return negated_products(lr, grads)

    monkeypatch.setattr(inner_update_function, "negated_products", counting)
    params, grads = tensors(0), [t.detach() for t in tensors(1)]
    grads[1].requires_grad_()
    sum(t.sum() for t in InnerUpdate.apply(*params, *grads, 0.1, 0.1, 0.1)).backward()
    assert computed == [[False, True, False]]
    assert torch.equal(grads[1].grad, torch.full_like(grads[1], -0.1))


def test_compiles_whole():
    compiled = torch.compile(lambda p, g: inner_update(p, g, 0.1), fullgraph=True, backend="eager")
    params, grads = tensors(0), tensors(1)
    for got, expected in zip(compiled(params, grads), definition(params, grads, 0.1), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-15, atol=1e-15)


@pytest.mark.extension
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("from_zeros", [False, True])
def test_kernel_equals_the_definition(dtype, from_zeros, monkeypatch):
    sizes = [(64, 64, 3, 3), (8191,), (8192,), (8193,), (33,), (1,), (), (0,), (200, 130)]  # about the cuts for threads
    params = [None if from_zeros else torch.randn(s, dtype=dtype) for s in sizes]
    grads = [torch.randn(s, dtype=dtype) for s in sizes]
    lr = [0.1 * i for i in range(len(sizes))]
    runs = []
    monkeypatch.setattr(inner_update_function, "with_extension", lambda *a: runs.append(1) or with_extension(*a))
    tolerance = 1e-6 if dtype == torch.float32 else 1e-15
    for p, g, rate, got in zip(params, grads, lr, InnerUpdate.apply(*params, *grads, *lr), strict=True):
        exact = (0 if p is None else p.double()) - rate * g.double()
        torch.testing.assert_close(got, exact.to(dtype), rtol=tolerance, atol=tolerance)
    assert runs


@pytest.mark.parametrize("odd", [Tensor.half, lambda t: t.mT, lambda t: t[:, ::2], lambda t: t.to("meta")])
def test_what_the_kernel_cannot_read_goes_to_torch(odd):
    p, g = odd(torch.randn(4, 6)), odd(torch.randn(4, 6))
    assert inner_update_function.kernel([p], [g], [0.1]) is inner_update_function.with_torch
    (got,) = InnerUpdate.apply(p, g, 0.1)
    assert got.shape == p.shape and got.dtype == p.dtype
    if p.device.type == "cpu":
        torch.testing.assert_close(got, p - 0.1 * g)


BAD = {
    "fewer grads": (lambda p, g: (p, g[:1], 0.1), "grads as a sequence of 3"),
    "grads by name": (lambda p, g: (p, dict(enumerate(g)), 0.1), "got dict"),
    "list for dict": (lambda p, g: (dict(zip("abc", p, strict=True)), g, 0.1), "expected grads as a dict"),
    "other keys": (lambda p, g: (dict(zip("abc", p, strict=True)), dict(zip("abd", g, strict=True)), 0.1), "only one"),
    "other shape": (lambda p, g: (p, [g[0].mT, *g[1:]], 0.1), r"\(4, 3, 2\); got \(4, 2, 3\)"),
    "vector rate": (lambda p, g: (p, g, torch.ones(3)), "got Tensor"),
    "fewer rates": (lambda p, g: (p, g, [0.1]), "lr as a sequence of 3, one per parameter; got 1"),
    "wide rate": (lambda p, g: (p, g, [torch.ones(7), 1, 1]), r"broadcasts to \(4, 3, 2\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_says_expected_and_got(case):
    make, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        inner_update(*make(tensors(0), tensors(1)))
