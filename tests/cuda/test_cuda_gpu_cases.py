"""The unstructured cases of `make gpu`, small and on the CPU: what is timed there is checked here."""

from __future__ import annotations

import pytest
import torch
from on_host import loader
from sparsemeta.bench import gpu
from sparsemeta.bench.cases import gpu_conv, gpu_inner_update, gpu_meta, gpu_unstructured
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
def test_meta_steps_are_right_one_by_one_and_at_once(order):
    small = MetaShape(size=16, channels=1, shots=1, hidden=4, ways=2, queries=2, steps=2)
    [case] = gpu_meta.cases([small], ["unstructured"], [0.5], 3, "cpu", [order])
    assert case.backend == "cuda" and errors(case).keys() == {
        "dense contiguous", "dense channels_last", "dense all tasks", "sparse contiguous", "sparse all tasks"
    }  # fmt: skip


def test_inner_updates_are_right():
    [case] = gpu_inner_update.cases([2], [0.95], "cpu")
    assert errors(case).keys() == {"foreach", "cuda"}


def test_every_part_has_cases():
    for part in gpu.PARTS:
        cases = gpu.PARTS[part]("cpu")
        assert cases and all("sparsity" in case.labels for case in cases)
