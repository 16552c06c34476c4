"""The cases of `sparsemeta bench conv`."""

from __future__ import annotations

import pytest

from sparsemeta import backends

from .cases.conv_shapes import SHAPES
from .cases.masked_conv2d import ConvCase, cases

HERE = [name for name in ("dense", "cpu") if not backends.available()[name]]
CASES = cases([shape for shapes in SHAPES.values() for shape in shapes], backends=HERE)


@pytest.mark.parametrize("way", ["dense: contiguous", "dense: channels_last", *(f"sparse: {name}" for name in HERE)])
@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(map(str, case.labels.values())))
def test_masked_conv2d(time_way, case: ConvCase, way: str):
    time_way(case, way)
