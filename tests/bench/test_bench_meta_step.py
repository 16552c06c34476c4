"""`sparsemeta bench maml`: the same meta-step, and a check that sees which order it has."""

from __future__ import annotations

import json

import pytest
import torch
from sparsemeta.bench.cases.meta_shapes import SHAPES, MetaShape, chosen
from sparsemeta.bench.cases.meta_step import MetaStepCase, cases, runner
from typer.testing import CliRunner

import sparsemeta as sm
from sparsemeta import backends
from sparsemeta.cli.bench import app

HERE = tuple(name for name in ("dense", "cpu") if not backends.available()[name])
TINY = MetaShape(16, channels=1, shots=2, hidden=8, queries=2, steps=2)
TINY_RESNET12 = MetaShape(16, channels=1, shots=2, queries=2, steps=2, widths=(8, 16))


@pytest.mark.parametrize("shape", [TINY, TINY_RESNET12], ids=str)
@pytest.mark.parametrize("order", ["first", "second"])
def test_every_way_gives_the_exact_meta_gradient(order, shape):
    case = MetaStepCase(shape, order, 0.8, 1, HERE, tasks=2)
    errors = {f"{c.role} {c.name}": c.error(c.run()) for c in case.candidates()}
    assert len(errors) == 2 + len(HERE) and max(errors.values()) < 1e-2, errors


@pytest.mark.parametrize("order", ["first", "second"])
def test_dense_by_torch_func_gives_it_too(monkeypatch, order):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)  # which would take minutes
    [candidate] = [c for c in MetaStepCase(TINY, order, 0.8, 1, (), 2, peers=("compiled",)).candidates()][2:]
    assert (candidate.role, candidate.name) == ("dense", "compiled") and candidate.error(candidate.run()) < 1e-2


@pytest.mark.parametrize(("structure", "engine"), [("16x1", "autograd"), ("1x1x3x3", "auto")])
def test_blocks_and_engines(structure, engine):
    shape = MetaShape(16, channels=1, shots=2, hidden=16, queries=2, steps=2)
    case = MetaStepCase(shape, "second", 0.75, 1, HERE, structure=structure, engine=engine)
    assert all(candidate.error(candidate.run()) < case.tolerance for candidate in case.candidates())
    assert {pattern.block for name, pattern in case.ticket().items() if "conv" in name} != {(1, 1, 1, 1)}
    assert case.labels["pattern"] == structure and case.labels["engine"] == engine


def test_meta_gradient_of_the_wrong_order_is_refused():
    case = MetaStepCase(TINY, "second", 0.8, 1, ("dense",))
    [candidate] = [c for c in case.candidates() if c.role == "sparse"]
    first_order = runner(sm.sparsify(TINY.model(), case.ticket()), TINY.tasks(1), TINY.config("first"))
    assert candidate.error(candidate.run()) < case.tolerance < candidate.error(first_order())


def test_weights_stay_where_they_are_over_many_rounds():
    [run] = [c.run for c in MetaStepCase(TINY, "first", 0.8, 1, ("dense",)).candidates() if c.role == "sparse"]
    before = run()[0]
    for _ in range(20):
        after = run()[0]
    assert (after - before).abs().max() < 0.05 * before.abs().max()


def test_ideal_is_the_ratio_of_multiply_adds():
    assert MetaStepCase(TINY, "first", 0.8, 1, ("dense",)).ideal == pytest.approx(5, rel=0.02)


def test_cases_are_every_combination_of_what_there_is():
    shapes = chosen(["28", "84"], steps=1)
    assert [shape.steps for shape in shapes] == [1, 1]
    structures = ["unstructured", "16x1"]
    assert len(cases(shapes, ("first", "second"), (0.8, 0.9), (1, 2), ["dense"], (1, 4), structures)) == 64
    with pytest.raises(ValueError, match="expected each shape to be one of 28, 84"):
        chosen(["32"])
    with pytest.raises(ValueError, match="expected at least one inner step"):
        chosen(["28"], steps=0)
    for wrong, message in [
        ({"engine": "jax"}, "expected each engine to be one of auto, chain, autograd"),
        ({"peers": ["sparseprop"]}, "expected each peer to be one of compiled"),
        ({"structures": ["4"]}, 'expected a pattern like "unstructured"'),
        ({"orders": ["third"]}, "expected each order to be one of first, second"),
        ({"tasks": [0]}, "expected at least one task"),
        ({"sparsities": [2.0]}, "expected sparsities from 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            cases(**{"shapes": [TINY], "backends": ["dense"], **wrong})


def test_command(tmp_path, monkeypatch):
    monkeypatch.setitem(SHAPES, "28", TINY)
    line = f"maml --quick --threads 1 --fresh-memory --sparsity 0.5 --backend dense --json {tmp_path}/b.json"
    result = CliRunner().invoke(app, [*line.split(), "--plot", f"{tmp_path}/b.png"])
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "b.json").read_text())["results"]
    assert [row["labels"]["order"] for row in rows] == ["first", "second"] and (tmp_path / "b.png").stat().st_size
    assert all(len(row["samples"]) == 3 and not row["wrong"] for row in rows)
