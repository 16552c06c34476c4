"""The cases of `make gpu`, small and on CPU tensors: what is timed there is checked here."""

from __future__ import annotations

import pytest
import torch
from sparsemeta.bench import gpu
from sparsemeta.bench.cases import gpu_conv
from sparsemeta.bench.cases.conv_shapes import ConvShape


@pytest.fixture(autouse=True)
def _precision():
    """The cases set PyTorch's own switch."""
    cudnn = torch.backends.cudnn
    before = cudnn.conv.fp32_precision, cudnn.benchmark
    yield
    cudnn.conv.fp32_precision, cudnn.benchmark = before


@pytest.mark.parametrize("arithmetic", gpu_conv.ARITHMETIC)
def test_every_candidate_of_a_case_is_right(arithmetic, monkeypatch):
    monkeypatch.setattr(gpu_conv, "CALLS", 1)
    small = gpu_conv.cases([ConvShape(2, 32, 32, 5)], ["16x16"], [0.5], "cpu")
    case = next(c for c in small if c.arithmetic == arithmetic and c.conv.passes == "forward+backward")
    found = {candidate.name: candidate.error(candidate.run()) for candidate in case.candidates()}
    assert found.keys() == {"contiguous", "channels_last", "triton contiguous", "triton channels_last"}
    assert all(error <= case.tolerance for error in found.values()), found
    assert case.ideal == 2.0


def test_parts_without_a_result_are_those_that_run(tmp_path):
    assert gpu.missing(tmp_path, "h200") == list(gpu.PARTS)
    gpu.result(tmp_path, "h200", "conv4-16x16").touch()
    assert gpu.missing(tmp_path, "h200") == list(gpu.PARTS)[1:]
    assert gpu.slug("NVIDIA H200") == "h200" and gpu.slug("NVIDIA A100-SXM4-80GB") == "a100-sxm4-80gb"


def test_an_unknown_part_and_a_missing_gpu_are_named():
    with pytest.raises(ValueError, match="conv4-16x16.*got conv5"):
        gpu.main(["conv5"])
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="expected a CUDA device"):
            gpu.main([])
