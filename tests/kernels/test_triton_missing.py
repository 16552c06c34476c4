"""What the backend says where Triton or a GPU is missing, and what it costs then."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import sparsemeta as sm
from sparsemeta.backends import triton, triton_driver


def test_without_triton_the_reason_says_what_to_install(monkeypatch):
    monkeypatch.setattr(triton_driver, "_installed", lambda: False)
    assert triton.missing() == ["Triton is not installed (pip install triton)"]
    pattern = sm.Pattern.from_mask(torch.ones(16, 16, 1, 1).bool(), (16, 16))
    with pytest.raises(RuntimeError, match="Triton is not installed"):
        sm.masked_conv2d(torch.randn(1, 16, 2, 2), torch.randn(256), pattern, backend="triton")


def test_without_a_gpu_the_reasons_name_the_device_and_the_operands(monkeypatch):
    monkeypatch.setattr(triton_driver, "_installed", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    first, second = triton.reasons(torch.zeros(1))
    assert "no CUDA device" in first and "TRITON_INTERPRET=1" in first
    assert second == "it needs CUDA tensors, got cpu"


def test_importing_the_package_imports_no_kernel():
    code = "import sys, sparsemeta; sys.exit('sparsemeta.kernels.masked_conv2d' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
