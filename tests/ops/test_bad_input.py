"""What `masked_conv2d` refuses: the error says what was expected, what was given and what to do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import sparsemeta as sm

MASK = torch.ones(4, 3, 3, 3, dtype=torch.bool)
KEPT = MASK.numel()
GOOD = {
    "x": torch.ones(2, 3, 6, 7), "values": torch.ones(KEPT), "pattern": sm.Pattern.from_mask(MASK),
    "bias": torch.ones(4), "stride": 1, "padding": 1, "dilation": 1, "groups": 1, "backend": None,
}  # fmt: skip
LINEAR = sm.Pattern.from_mask(MASK[:, :, 0, 0])

BAD = {
    "a mask for a pattern": ({"pattern": MASK}, "expected a Pattern of shape .*, got a Tensor; use Pattern.from_mask"),
    "pattern of a linear layer": ({"pattern": LINEAR}, r"\(O, I / groups, kh, kw\), got Pattern\(shape=\(4, 3\)"),
    "values too short": ({"values": torch.ones(KEPT - 1)}, rf"\(tasks, {KEPT}\).*got \({KEPT - 1},\)"),
    "values of a whole weight": ({"values": torch.ones(4, 3, 3, 3)}, r"got \(4, 3, 3, 3\); take them from"),
    "values without axes": ({"values": torch.tensor(1.0)}, r"expected values of shape .*got \(\)"),
    "values of tasks of tasks": ({"values": torch.ones(2, 2, KEPT)}, rf"got x .* and values \(2, 2, {KEPT}\)"),
    "x of one image": ({"x": torch.ones(3, 6, 7)}, r"expected x \[N, C, H, W\] .*got x \(3, 6, 7\)"),
    "x of tasks, values of none": ({"x": torch.ones(2, 2, 3, 6, 7)}, r"got x \(2, 2, 3, 6, 7\) and values"),
    "x of other tasks": (
        {"x": torch.ones(2, 2, 3, 6, 7), "values": torch.ones(3, KEPT)},
        rf"got x \(2, 2, 3, 6, 7\) and values \(3, {KEPT}\)",
    ),
    "x channels": ({"x": torch.ones(2, 4, 6, 7)}, r"expected an input of 3 .*got \(2, 4, 6, 7\); check"),
    "x channels of groups": ({"groups": 2}, r"expected an input of 6 channels .*groups=2, got \(2, 3, 6, 7\)"),
    "groups that do not divide": ({"groups": 3}, r"expected groups to divide the 4 output channels, got 3; use"),
    "groups 0": ({"groups": 0}, r"expected groups to divide .*got 0"),
    "groups of a float": ({"groups": 1.0}, r"expected groups to divide .*got 1.0"),
    "stride 0": ({"stride": 0}, r"expected stride to be an integer or a pair of integers >= 1, got 0; use"),
    "stride of three": ({"stride": (1, 1, 1)}, r"expected stride .*got \(1, 1, 1\)"),
    "stride of a float": ({"stride": 1.5}, r"expected stride .*got 1.5"),
    "negative padding": ({"padding": -1}, "expected padding to be .* integers >= 0, got -1; use"),
    "padding by a wrong name": ({"padding": "full"}, "expected padding to be integers, .*, got 'full'; use"),
    "same with a stride": ({"padding": "same", "stride": 2}, r'1 with padding="same", got \(2, 2\); use'),
    "dilation 0": ({"dilation": (1, 0)}, r"expected dilation .*got \(1, 0\); use"),
    "kernel larger than x": (
        {"padding": 0, "dilation": 3},
        r"as large as the dilated kernel, got .*\(6, 7\) with padding .*; pad or enlarge",
    ),
    "bias too long": ({"bias": torch.ones(5)}, r"expected bias of shape \(4,\) or .*, got \(5,\); use"),
    "bias of tasks, values of none": ({"bias": torch.ones(2, 4)}, r"expected bias .*got \(2, 4\); use"),
    "values of another dtype": ({"values": torch.ones(KEPT).double()}, "of dtype torch.float32 .*, got .*; convert"),
    "bias of another dtype": ({"bias": torch.ones(4).double()}, "bias of dtype torch.float32 like x, got .*; convert"),
    "x of another dtype": ({"x": torch.ones(2, 3, 6, 7).int()}, "values of dtype torch.int32 like x, got .*; convert"),
    "values elsewhere": ({"values": torch.ones(KEPT, device="meta")}, "values on cpu like x, got meta; move one"),
    "unknown backend": ({"backend": "cudnn"}, "backend to be one of 'auto', 'dense', 'cpu'.*, got 'cudnn'"),
}


@pytest.mark.parametrize(("changed", "message"), BAD.values(), ids=BAD)
def test_refused(changed, message):
    before = {name: t.clone() for name, t in GOOD.items() if isinstance(t, torch.Tensor)}
    with pytest.raises(ValueError, match=message):
        sm.masked_conv2d(**GOOD | changed)
    assert all(torch.equal(GOOD[name], t) for name, t in before.items())


def test_what_the_table_changes_is_accepted_unchanged():
    wanted = F.conv2d(GOOD["x"], torch.ones(4, 3, 3, 3), GOOD["bias"], padding=1)
    torch.testing.assert_close(sm.masked_conv2d(**GOOD), wanted)


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (torch.ones(4, 3, 3, 3), TypeError, r"expected a torch.bool mask, got a torch.float32 tensor; use"),
        (np.ones((4, 3)), TypeError, r"expected a torch.bool mask, got ndarray"),
        (torch.ones(4, 3, 3, dtype=torch.bool), ValueError, r"expected a mask of shape .*got \(4, 3, 3\)"),
        (torch.ones(4, dtype=torch.bool), ValueError, r"expected a mask of shape .*got \(4,\); a mask has the shape"),
    ],
)
def test_mask_refused(mask, error, message):
    with pytest.raises(error, match=message):
        sm.Pattern.from_mask(mask)


HALVES = {"x": GOOD["x"].half(), "values": GOOD["values"].half(), "bias": GOOD["bias"].half()}


@pytest.mark.extension
@pytest.mark.parametrize("changed", [HALVES, {"values": torch.ones(KEPT).double()}, {"bias": torch.ones(4).half()}])
def test_named_backend_that_cannot_run(changed):
    """It says why, and the automatic choice would have stepped aside or named the operand."""
    with pytest.raises(RuntimeError, match="'cpu' cannot run this: it needs all float32 or all float64, got .*; or"):
        sm.masked_conv2d(**GOOD | changed | {"backend": "cpu"})


def test_automatic_choice_steps_aside():
    y = sm.masked_conv2d(**GOOD | HALVES)
    assert y.dtype == torch.half
    torch.testing.assert_close(y.float(), sm.masked_conv2d(**GOOD))


def test_autocast_decides_the_dtypes():
    """Then operands may differ: none of them may be read as if it had the dtype of another."""
    given = GOOD | {"bias": torch.randn(4).bfloat16()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = sm.masked_conv2d(**given)
        wanted = F.conv2d(given["x"], torch.ones(4, 3, 3, 3), given["bias"], padding=1)
    torch.testing.assert_close(y, wanted)
