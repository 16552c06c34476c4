"""`masked_conv2d` under `torch.func`: every transform gives what it gives of the definition."""

from __future__ import annotations

import pytest
import torch
from conv_cases import BACKENDS, Case
from definition import mask_of
from problem import dense, masked
from tolerances import assert_close
from torch import nn
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap
from torch.utils._pytree import tree_leaves

CASE = Case("func", (4, 3, 3, 2), (5, 6), 2, stride=(2, 1), padding=1, groups=2, density=0.4)
NNZ = int(mask_of(CASE).sum())
backends = pytest.mark.parametrize("backend", BACKENDS)


def operands() -> tuple[torch.Tensor, ...]:
    return torch.randn(2, 6, 5, 6).double(), torch.randn(NNZ).double(), torch.randn(4).double()


def loss(conv):
    return lambda *given: conv(*given).tanh().square().sum()


def assert_same(actual, wanted, operation="masked_conv2d"):
    for got, expected in zip(tree_leaves(actual), tree_leaves(wanted), strict=True):
        assert_close(got, expected, operation)


def per_sample(t):
    """Two samples of what is one."""
    return torch.stack([t, 0.5 * t.flip(-1)])


TRANSFORMS = {
    "grad": lambda f, p, t: grad(loss(f), (0, 1, 2))(*p),
    "vjp": lambda f, p, t: vjp(f, *p)[1](f(*t)),
    "jvp": lambda f, p, t: jvp(f, p, t),
    "jvp of x": lambda f, p, t: jvp(lambda x: f(x, *p[1:]), p[:1], t[:1]),
    "jvp of values": lambda f, p, t: jvp(lambda v: f(p[0], v, p[2]), p[1:2], t[1:2]),
    "jvp of bias": lambda f, p, t: jvp(lambda b: f(*p[:2], b), p[2:], t[2:]),
    "linearize": lambda f, p, t: linearize(f, *p)[1](*t),
    "grad of grad": lambda f, p, t: grad(lambda *q: grad(loss(f), 1)(*q).square().sum(), (0, 1, 2))(*p),
    "grad of grad of grad": lambda f, p, t: grad(
        lambda v: grad(lambda v: grad(loss(f), 1)(p[0], v, p[2]).square().sum())(v).square().sum()
    )(p[1]),
    "jvp of grad": lambda f, p, t: jvp(grad(loss(f), (0, 1, 2)), p, t),  # forward over reverse
    "grad of jvp": lambda f, p, t: grad(lambda *q: jvp(loss(f), q, t)[1], (0, 1, 2))(*p),  # reverse over forward
    "hessian of values": lambda f, p, t: hessian(loss(f), 1)(*p),
    "hessian of x and values": lambda f, p, t: hessian(loss(f), (0, 1))(*p),
    "jacfwd": lambda f, p, t: jacfwd(f, (1, 2))(*p),
    "jacrev": lambda f, p, t: jacrev(f, (1, 2))(*p),
    "vmap of grad": lambda f, p, t: vmap(grad(loss(f), (0, 1, 2)), (0, None, None))(per_sample(p[0]), *p[1:]),
    "vmap of grad of tasks": lambda f, p, t: vmap(grad(loss(f), (0, 1, 2)))(*map(per_sample, p)),
    "grad of vmap": lambda f, p, t: grad(lambda *q: loss(vmap(f, (None, 0, None)))(*q), (0, 1))(
        p[0], per_sample(p[1]), p[2]
    ),
    "jvp of vmap": lambda f, p, t: jvp(
        vmap(f, (0, None, 0)), *((per_sample(x), v, per_sample(b)) for x, v, b in (p, t))
    ),
    "vmap of jvp": lambda f, p, t: vmap(lambda *q: jvp(f, q, t), (None, 0, None))(p[0], per_sample(p[1]), p[2]),
    "vmap of jvp of grad": lambda f, p, t: vmap(lambda *q: jvp(grad(loss(f), (0, 1)), q, t))(*map(per_sample, p)),
}


@backends
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transform(backend, name):
    points, tangents = operands(), operands()
    with torch.no_grad():
        wanted = TRANSFORMS[name](dense(CASE), points, tangents)
        assert_same(TRANSFORMS[name](masked(CASE, backend), points, tangents), wanted)


@pytest.mark.extension
def test_forward_over_forward_is_refused():
    """PyTorch would give a wrong number: forward mode is off inside the jvp of a Function."""
    conv, points, tangents = masked(CASE, "cpu"), operands(), operands()
    with pytest.raises(NotImplementedError, match="expected at most one .*, got .*; use reverse mode"):
        jvp(lambda *p: jvp(loss(conv), p, tangents)[1], points, tangents)


class Layer(nn.Module):
    """Just enough of a layer to be called functionally."""

    def __init__(self, conv, values, bias):
        super().__init__()
        self.conv, self.values, self.bias = conv, nn.Parameter(values), nn.Parameter(bias)

    def forward(self, x):
        return self.conv(x, self.values, self.bias)


@backends
def test_functional_call(backend):
    x, values, bias = operands()
    layer = Layer(masked(CASE, backend), torch.zeros(NNZ), torch.zeros(4)).double()
    given = {"values": values, "bias": bias}
    assert_same(functional_call(layer, given, (x,)), dense(CASE)(x, values, bias))
    gradients = grad(lambda given: functional_call(layer, given, (x,)).tanh().square().sum())(given)
    assert_same(tuple(gradients.values()), grad(loss(dense(CASE)), (1, 2))(x, values, bias))
    many = {name: per_sample(t) for name, t in given.items()}
    wanted = vmap(dense(CASE), (None, 0, 0))(x, many["values"], many["bias"])
    assert_same(vmap(functional_call, (None, 0, None))(layer, many, (x,)), wanted)
