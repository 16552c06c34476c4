"""`sparsemeta bench maml --memory`: peaks of processes of their own."""

from __future__ import annotations

import json
import sys

import pytest
from sparsemeta.bench import memory
from sparsemeta.bench.cases.meta_shapes import SHAPES, MetaShape
from sparsemeta.bench.cases.meta_step import MetaStepCase
from typer.testing import CliRunner

from sparsemeta.cli.bench import app

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")


def test_a_peak_is_that_of_the_step_alone():
    images = MetaShape(16, channels=1, shots=5, hidden=32, queries=1)
    few, many = (memory._peak(MetaStepCase(images, "second", 0.5, 1, ()), "contiguous", steps) for steps in (1, 10))
    assert 0 < few.step < few.process and (few.steps, many.steps) == (1, 10)
    assert many.step > few.step + 2**22  # the graph of ten steps


def test_command(tmp_path, monkeypatch):
    monkeypatch.setitem(SHAPES, "28", MetaShape(16, channels=1, shots=1, hidden=8, queries=1))
    peaks = iter(range(100, 1000, 100))
    monkeypatch.setattr(memory, "_measured", lambda *_: {"process": next(peaks) << 20, "step": 1 << 20})
    line = "maml --memory --shapes 28 --order second --sparsity 0.5 --threads 1 --backend dense"
    result = CliRunner().invoke(app, [*line.split(), "--json", f"{tmp_path}/b.json"])
    assert result.exit_code == 0, result.output
    assert "100 MB (1 MB)" in result.output and "2.00 (1.00)" in result.output
    found = json.loads((tmp_path / "b.json").read_text())["memory"]
    assert [(peak["way"], peak["steps"]) for peak in found[-2:]] == [("dense", 1), ("dense", 10)] and len(found) == 6


def test_a_step_that_fails_is_told():
    case = MetaStepCase(MetaShape(16, channels=1, shots=1, hidden=8, queries=1), "second", 0.5, 1, ())
    with pytest.raises(RuntimeError, match="expected the meta-step of gpu with 1 inner steps to run, got: .*backend"):
        memory._peak(case, "gpu", 1)
