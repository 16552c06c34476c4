"""The cases of `sparsemeta bench maml`."""

from __future__ import annotations

import pytest

from sparsemeta import backends

from .cases.meta_shapes import SHAPES
from .cases.meta_step import MetaStepCase, cases

HERE = [name for name in ("dense", "cpu") if not backends.available()[name]]
CASES = cases(list(SHAPES.values()), backends=HERE)


@pytest.mark.parametrize("way", ["dense: contiguous", "dense: channels_last", *(f"sparse: {name}" for name in HERE)])
@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(map(str, case.labels.values())))
def test_meta_step(time_way, case: MetaStepCase, way: str):
    time_way(case, way)
