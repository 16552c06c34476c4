"""Each of the three partners against finite differences: reverse, forward, batched, and the same of the gradients."""

from __future__ import annotations

import pytest
import torch
from conv_cases import Case
from definition import mask_of
from problem import problem
from torch.autograd import gradcheck, gradgradcheck

import sparsemeta as sm
from sparsemeta.ops.conv import Conv
from sparsemeta.ops.masked_conv2d import InputGrad, MaskedConv2d, WeightGrad

pytestmark = pytest.mark.extension
CASES = [
    Case("plain", (2, 2, 2, 2), (3, 3), 2, density=0.5),
    Case("strided", (2, 1, 3, 2), (4, 3), 1, stride=(2, 1), padding=(1, 2), groups=2, density=0.5, bias=False),
    Case("dilated", (2, 2, 2, 1), (4, 2), 1, padding="same", dilation=2, density=0.5),
    Case("blocks", (4, 2, 1, 1), (2, 2), 2, block=(2, 1), density=0.5),
    Case("tasks", (2, 2, 2, 2), (3, 2), 1, padding=1, density=0.3, tasks=2),
    Case("tasks-one-bias", (2, 1, 2, 1), (3, 2), 1, density=0.5, tasks=2, shared=("bias",)),
]
cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def partners(case: Case) -> dict:
    """Function and operands of every partner."""
    conv = Conv.make(sm.Pattern.from_mask(mask_of(case), block=case.block), backend="cpu", **case.arguments)
    p = problem(case, torch.float64)
    return {
        "forward": (lambda x, values, bias=None: MaskedConv2d.apply(x, values, bias, conv), p.operands),
        "input gradient": (lambda g, values: InputGrad.apply(g, values, *case.image, conv), (p.g, p.values)),
        "weight gradient": (lambda g, x: WeightGrad.apply(g, x, conv), (p.g, p.x)),
    }


@cases
@pytest.mark.parametrize("partner", ["forward", "input gradient", "weight gradient"])
def test_first_order(partner, case):
    function, operands = partners(case)[partner]
    assert gradcheck(
        function, operands, check_batched_grad=True, check_forward_ad=True, check_batched_forward_grad=True
    )


@cases
@pytest.mark.parametrize("partner", ["forward", "input gradient", "weight gradient"])
def test_second_order(partner, case):
    function, operands = partners(case)[partner]
    # The sine gives the function a curvature that a linear operation does not have by itself.
    assert gradgradcheck(
        lambda *t: function(*t).sin(),
        operands,
        check_batched_grad=True,
        check_fwd_over_rev=True,
        gen_non_contig_grad_outputs=True,
    )


def test_third_order():
    function, (x, values, bias) = partners(CASES[0])["forward"]

    def gradient(x, values):
        y = function(x, values, bias).sin().sum()
        return torch.autograd.grad(y, (x, values), create_graph=True)

    assert gradgradcheck(gradient, (x, values))
