"""The cases of `sparsemeta bench adapt`."""

from __future__ import annotations

import pytest

from sparsemeta import backends

from .cases.adapt import AdaptCase, cases
from .cases.meta_shapes import SHAPES

HERE = [name for name, reasons in backends.available().items() if not reasons]
CASES = cases([SHAPES["28"]], backends=HERE)


@pytest.mark.parametrize("way", ["dense: contiguous", "dense: channels_last", *(f"sparse: {name}" for name in HERE)])
@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(map(str, case.labels.values())))
def test_adapt(time_way, case: AdaptCase, way: str):
    time_way(case, way)
