"""The Triton kernel of `inner_update` on a GPU, against `p - lr * g`."""

from __future__ import annotations

import pytest
import torch

from sparsemeta.backends import triton

pytestmark = pytest.mark.gpu
SHAPES = [(), (1030,), (3, 4, 2, 2), (0,), (2, 5)] * 14  # more parameters than a launch takes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=["f32", "f16", "bf16"])
@pytest.mark.parametrize("learned", [False, True], ids=["numbers", "tensors"])
def test_equals_its_definition(dtype, learned):
    params, grads = ([torch.randn(shape, device="cuda").to(dtype) for shape in SHAPES] for _ in range(2))
    rates = [torch.rand_like(p) if learned else 0.01 * i for i, p in enumerate(params)]
    for p, g, lr, new in zip(params, grads, rates, triton.inner_update(params, grads, rates), strict=True):
        expected = p.double() - (lr.double() if learned else lr) * g.double()
        torch.testing.assert_close(new, expected.to(dtype), rtol=2e-2 if dtype == torch.bfloat16 else 2e-3, atol=1e-2)
