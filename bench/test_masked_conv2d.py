"""The cases of `sparsemeta bench conv` for `pytest bench/ --benchmark-json FILE`, to follow each way over time.

pytest-benchmark times one after the other, so for ratios take the command: it times them in turns.
"""

from __future__ import annotations

import pytest
import torch

from sparsemeta import backends

from .cases.conv_shapes import SHAPES
from .cases.masked_conv2d import ConvCase, cases

HERE = [name for name, reasons in backends.available().items() if not reasons]
CASES = cases([shape for shapes in SHAPES.values() for shape in shapes], backends=HERE)


@pytest.mark.parametrize("way", ["dense: contiguous", "dense: channels_last", *(f"sparse: {name}" for name in HERE)])
@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(map(str, case.labels.values())))
def test_masked_conv2d(benchmark, case: ConvCase, way: str):
    torch.set_num_threads(case.threads)
    [candidate] = [c for c in case.candidates() if f"{c.role}: {c.name}" == way]
    assert candidate.error(candidate.run()) <= case.tolerance
    benchmark.group = " ".join(map(str, case.labels.values()))
    benchmark.extra_info.update(case.labels, way=way, ideal=case.ideal)
    benchmark(candidate.run)
