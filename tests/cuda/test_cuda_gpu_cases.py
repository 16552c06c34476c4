"""The unstructured cases of `make gpu`, small and on the CPU: what is timed there is checked here."""

from __future__ import annotations

import pytest
import torch
from on_host import loader
from sparsemeta.bench import gpu
from sparsemeta.bench.cases import gpu_conv, gpu_inner_update, gpu_meta_step, gpu_unstructured
from sparsemeta.bench.cases.conv_shapes import ConvShape
from sparsemeta.bench.cases.meta_shapes import MetaShape

from sparsemeta.backends import cuda_compile

pytestmark = [pytest.mark.extension, pytest.mark.usefixtures("emulated")]


@pytest.fixture(autouse=True)
def _precision(monkeypatch):
    """The cases set PyTorch's own switch, and repeat each call."""
    cudnn = torch.backends.cudnn
    before = cudnn.conv.fp32_precision, cudnn.benchmark
    monkeypatch.setattr(gpu_conv, "CALLS", 1)
    yield
    cudnn.conv.fp32_precision, cudnn.benchmark = before


def errors(case) -> dict[str, float]:
    found = {candidate.name: candidate.error(candidate.run()) for candidate in case.candidates()}
    assert all(error <= case.tolerance for error in found.values()), found
    return found


def test_convolutions_are_right_by_every_way(monkeypatch, tmp_path):
    monkeypatch.setattr(cuda_compile, "load", loader(tmp_path))
    case = gpu_unstructured.cases([ConvShape(2, 9, 8, 5)], [0.5], "cpu")[-1]
    assert errors(case).keys() == {"contiguous", "channels_last", "cuda table", "cuda generated"}
    assert case.labels["arithmetic"] == "tf32" and case.labels["pass"] == "forward+backward" and case.ideal == 2.0


@pytest.mark.parametrize("order", ["first", "second"])
def test_meta_gradients_are_right_one_by_one_and_at_once(order):
    small = MetaShape(size=16, channels=1, shots=1, hidden=4, ways=2, queries=2, steps=2)
    [case] = [c for c in gpu_meta_step.cases([small], [0.5], 3, "cpu") if c.order == order]
    assert errors(case).keys() == {"dense", "dense all tasks", "sparse", "sparse all tasks"}


def test_inner_updates_are_right():
    [case] = gpu_inner_update.cases([2], [0.95], "cpu")
    assert errors(case).keys() == {"foreach", "cuda"}


def test_every_part_has_cases():
    for part in ("conv4-unstructured", "resnet12-unstructured", "meta-unstructured", "inner-update"):
        assert all(case.labels["sparsity"] in gpu.SPARSITIES for case in gpu.PARTS[part]("cpu"))
