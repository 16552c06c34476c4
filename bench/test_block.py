"""The cases of `sparsemeta bench block`."""

from __future__ import annotations

import pytest

from sparsemeta import backends

from .cases.block import BlockCase, cases
from .cases.conv_shapes import SHAPES

HERE = [name for name, reasons in backends.available().items() if not reasons]
CASES = cases(SHAPES["conv4"], sparsities=(0, 0.8, 0.9, 0.95), backends=HERE)


@pytest.mark.parametrize("way", ["dense: contiguous", "dense: channels_last", *(f"sparse: {name}" for name in HERE)])
@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(map(str, case.labels.values())))
def test_block(time_way, case: BlockCase, way: str):
    time_way(case, way)
