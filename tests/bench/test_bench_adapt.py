"""`sparsemeta bench adapt`: query losses after adaptation, and the time for each task."""

from __future__ import annotations

import json
import re

import pytest
from sparsemeta.bench.cases.adapt import AdaptCase, cases
from sparsemeta.bench.cases.meta_shapes import SHAPES, MetaShape
from typer.testing import CliRunner

from sparsemeta import backends
from sparsemeta.cli.bench import app

HERE = tuple(name for name, reasons in backends.available().items() if not reasons)
TINY = MetaShape(16, channels=1, shots=2, hidden=16, queries=2, steps=2)


@pytest.mark.parametrize("structure", ["unstructured", "16x1"])
def test_every_way_gives_the_exact_loss_of_every_task(structure):
    case = AdaptCase(TINY, structure, 0.8, 3, 1, HERE)
    for candidate in case.candidates():
        [losses] = candidate.run()
        assert losses.shape == (3,) and candidate.error([losses]) < case.tolerance
        assert candidate.error([losses.flip(0)]) > case.tolerance  # those of other tasks
    assert case.ideal > 3


def test_weights_stay_as_they_are():
    [run] = [c.run for c in AdaptCase(TINY, "unstructured", 0.8, 1, 1, ("dense",)).candidates() if c.role == "sparse"]
    assert run()[0].equal(run()[0])


def test_bad_input_is_refused():
    for wrong, message in [
        ({"engine": "jax"}, "expected each engine to be one of auto, chain, autograd"),
        ({"tasks": [0]}, "expected at least one task"),
        ({"structures": ["4"]}, 'expected a pattern like "unstructured"'),
        ({"threads": [0]}, "expected at least one thread"),
    ]:
        with pytest.raises(ValueError, match=message):
            cases([TINY], **{"backends": ["dense"], **wrong})


def test_command_tells_the_time_for_each_task(tmp_path, monkeypatch):
    monkeypatch.setitem(SHAPES, "28", TINY)
    line = "adapt --quick --threads 1 --fresh-memory --sparsity 0.5 --backend dense --tasks 1,4 --steps 3"
    result = CliRunner().invoke(app, [*line.split(), "--json", f"{tmp_path}/b.json", "--plot", f"{tmp_path}/b.png"])
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "b.json").read_text())["results"]
    assert [row["labels"]["tasks"] for row in rows] == [1, 4] and "3 steps" in rows[0]["labels"]["adapt"]
    total, each = map(float, re.search(r"│ 4 .*│ dense +│ +([\d.]+) ms │ +([\d.]+) ms", result.output).groups())
    assert each == pytest.approx(total / 4, rel=0.05) and (tmp_path / "b.png").stat().st_size
