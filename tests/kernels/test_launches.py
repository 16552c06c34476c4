"""What the host launches, bound, specialised and compiled as on a GPU, but not run: neither the interpreter nor the
table of resources sees the arguments that a kernel really gets."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch

import sparsemeta as sm
from sparsemeta.backends import triton as backend
from sparsemeta.ops.conv import Conv

pytest.importorskip("triton", reason="the compiler of the kernels is Triton's: pip install triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("what is interpreted is not compiled", allow_module_level=True)

from sparsemeta.bench import gpu_resources  # noqa: E402  it imports Triton
from sparsemeta.bench.cases.conv_candidates import LAYOUTS  # noqa: E402
from test_resources import assert_good  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.runtime.driver import driver  # noqa: E402
from triton.runtime.jit import JITFunction  # noqa: E402


class Driver:
    """Of a machine with one sm_90, as far as compiling asks."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


@pytest.fixture
def programs(monkeypatch, tmp_path) -> Callable[[Callable[[], object]], list[dict]]:
    """Calls a function on CPU tensors, and gives the resources of the programs that it launches."""
    found, run = [], JITFunction.run

    def compiled(self, *arguments, grid, warmup, **options) -> None:
        found.append(run(self, *arguments, grid=grid, warmup=True, **options))

    def of(call) -> list[dict]:
        found.clear()
        call()
        return [gpu_resources._read(program) for program in found]

    monkeypatch.setattr(driver, "_active", Driver())
    monkeypatch.setattr(JITFunction, "run", compiled)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    return of


@pytest.mark.parametrize("layout", gpu_resources.LAYOUTS)
@pytest.mark.parametrize(("arithmetic", "dtype"), [("tf32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_convolutions(programs, monkeypatch, arithmetic, dtype, layout):
    monkeypatch.setattr(backend, "allow_tf32", lambda: True)
    blocks = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 0]]).bool()[..., None, None]
    mask = blocks.repeat_interleave(32, 0).repeat_interleave(32, 1).expand(64, 128, 3, 3)
    conv = Conv.make(sm.Pattern.from_mask(mask, (32, 32)), 1, 1, 1, 1, "triton")
    x, g = (torch.randn(5, n, 21, 21).to(dtype, memory_format=LAYOUTS[layout]) for n in (128, 64))
    values, bias = torch.randn(conv.pattern.nnz, dtype=dtype), torch.randn(64, dtype=dtype)
    calls = {
        "forward": lambda: backend.masked_conv2d(x, values, bias, conv),
        "input gradient": lambda: backend.masked_conv2d_input_grad(g, values, 21, 21, conv),
        "weight gradient": lambda: backend.masked_conv2d_weight_grad(g, x, conv),
    }
    assert_good({f"{name}, 32x32, {arithmetic}, {layout}": programs(call)[0] for name, call in calls.items()})


def test_inner_updates(programs):
    params, rates = [torch.ones(5), torch.ones(3, 2), torch.ones(())], [0.1, torch.rand(3, 1), 1]
    for given in (params, [None] * 3):
        [row] = programs(lambda given=given: backend.inner_update(given, params, rates))
        assert row["spilled"] == 0


@pytest.mark.parametrize("layout", gpu_resources.LAYOUTS)
def test_norm_act_pool(programs, layout):
    x = torch.randn(3, 16, 21, 21).contiguous(memory_format=LAYOUTS[layout])
    weight, of_channel = torch.ones(16), torch.ones(16)

    def derivatives() -> None:
        y, mean, rstd, code = backend.norm_act_pool(x, weight, weight, 1e-5, 0.1, 2)
        backend.norm_act_pool_grad(y, x, weight, mean, rstd, code, 0.1, 2)
        backend.norm_act_pool_grad_grad(x, of_channel, of_channel, y, x, weight, mean, rstd, code, 0.1, 2)

    rows = programs(derivatives)
    assert len(rows) == 10 and all(row["spilled"] == 0 for row in rows)
