"""`sparsemeta bench block`: the same block everywhere, and a check that sees which order it has."""

from __future__ import annotations

import json

import pytest
import torch
from sparsemeta.bench.cases.block import PASSES, BlockCase, cases
from sparsemeta.bench.cases.conv_shapes import ConvShape
from typer.testing import CliRunner

from sparsemeta import backends
from sparsemeta.cli.bench import app

HERE = tuple(name for name, reasons in backends.available().items() if not reasons)
TINY = ConvShape(4, 8, 16, 14)


def case(passes: str, shape: ConvShape = TINY, structure: str = "unstructured", **rest) -> BlockCase:
    return BlockCase(shape, structure, 0.75, passes, 1, HERE, **rest)


@pytest.mark.parametrize("passes", PASSES)
@pytest.mark.parametrize("structure", ["unstructured", "4x4"])
@pytest.mark.parametrize("shape", [TINY, ConvShape(4, 4, 16, 14, stride=2, input_grad=False)], ids=str)
def test_every_way_gives_the_exact_results(shape, structure, passes):
    made = case(passes, shape, structure)
    errors = {f"{c.role} {c.name}": c.error(c.run()) for c in made.candidates()}
    assert len(errors) == 2 + len(HERE) and max(errors.values()) < made.tolerance, errors
    assert made.ideal == pytest.approx(4, rel=0.01)


@pytest.mark.parametrize("passes", PASSES)
def test_every_way_of_a_residual_block_gives_the_exact_results(passes):
    made = case(passes, ConvShape(4, 4, 8, 9), residual=True)
    errors = {f"{c.role} {c.name}": c.error(c.run()) for c in made.candidates()}
    assert len(errors) == 2 + len(HERE) and max(errors.values()) < made.tolerance, errors
    assert made.ideal == pytest.approx(4, rel=0.01) and made.labels["block"].endswith("residual")


def test_each_wrong_result_is_noticed():
    made = case("second order")
    for candidate in made.candidates():
        results = candidate.run()
        for i in (0, 1, -4):  # output, and the gradients of images and weight; with the rest it makes one vector
            changed = list(results)
            changed[i] = results[i] * 1.2
            assert candidate.error(tuple(changed)) > made.tolerance, i
        assert candidate.error((results[0] * float("nan"), *results[1:])) == float("inf")


def test_first_order_results_in_place_of_second_order_are_refused():
    first, second = (case(passes).candidates() for passes in PASSES[1:])
    for one, other in zip(first, second, strict=True):
        assert other.error(other.run()) < case("second order").tolerance < other.error(one.run())


def test_compiled_is_one_more_dense_way_but_not_of_second_order(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)  # which would take a minute
    for passes, ways in [("forward", 3), ("forward+backward", 3), ("second order", 2)]:
        dense = [c for c in case(passes, peers=("compiled",)).candidates() if c.role == "dense"]
        assert len(dense) == ways and all(c.error(c.run()) < 1e-4 for c in dense[2:])


def test_bad_input_is_refused():
    for wrong, message in [
        ({"passes": ["backward"]}, "expected each pass to be one of forward"),
        ({"peers": ["sparseprop"]}, "expected each peer to be one of compiled"),
        ({"structures": ["5x5"]}, "expected a block that divides"),
        ({"shapes": [ConvShape(kernel=1)], "residual": True}, "expected a 3x3 convolution of stride 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            cases(**{"shapes": [TINY], "backends": ["dense"], **wrong})


def test_command(tmp_path):
    line = f"block --custom 4x8x14x14:16:3 --quick --threads 1 --fresh-memory --backend dense --json {tmp_path}/b.json"
    line += f" --sparsity 0,0.75 --residual --plot {tmp_path}/b.svg"
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "b.json").read_text())["results"]
    assert [row["labels"]["pass"] for row in rows] == ["forward+backward"] * 2 + ["second order"] * 2
    assert all(len(row["samples"]) == 3 for row in rows) and (tmp_path / "b.svg").stat().st_size
