"""The one tolerance table: how far a result may lie from the definition computed in float64."""

from __future__ import annotations

import torch
from torch import Tensor

# (operation, dtype) -> rtol = atol, in units of the RMS of the expected tensor, at least 1: operands are of size 1, so
# a large sum is held to its own size, and a sum that happens to vanish to that of one product.
TOLERANCES: dict[tuple[str, torch.dtype], float] = {
    ("masked_conv2d", torch.float64): 1e-13,
    ("masked_conv2d_input_grad", torch.float64): 1e-13,
    ("masked_conv2d_weight_grad", torch.float64): 1e-13,
    ("bias gradient", torch.float64): 1e-13,
    ("meta-gradient", torch.float64): 1e-10,  # the products of 3 inner steps and 2 layers amplify rounding
    ("masked_conv2d", torch.float32): 4e-6,
    ("masked_conv2d_input_grad", torch.float32): 4e-6,
    ("masked_conv2d_weight_grad", torch.float32): 1e-5,  # sums over all pixels of all images, tens of thousands of them
    ("bias gradient", torch.float32): 2e-5,  # PyTorch's own sum; of equal numbers every addition rounds the same way
}
# Of the result alone, all inside is float32: 2^-9 of it in bfloat16, and a second derivative is a sum of three of them.
for half, rounding in ((torch.float16, 1e-3), (torch.bfloat16, 2e-2)):
    for operation in ("masked_conv2d", "masked_conv2d_input_grad", "masked_conv2d_weight_grad", "bias gradient"):
        TOLERANCES[operation, half] = rounding
    TOLERANCES["sum of results", half] = 6 * rounding  # that were rounded each and may cancel


def assert_close(actual: Tensor, expected: Tensor, operation: str, message: str = "") -> None:
    """Fail unless `actual` is as close to `expected` (float64) as the table says for the operation in that dtype."""
    tolerance = TOLERANCES[operation, actual.dtype]
    scale = max(1.0, expected.square().mean().sqrt().item()) if expected.numel() else 1.0
    torch.testing.assert_close(
        actual.double() / scale,
        expected / scale,
        rtol=tolerance,
        atol=tolerance,
        msg=lambda text: f"{message or operation}: {text}",
    )
