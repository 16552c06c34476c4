"""Nothing is timed before its result was right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from sparsemeta.bench.case import Candidate, relative_error
from sparsemeta.bench.measure import Result, Sample, measure
from sparsemeta.bench.timing import Budget, Spread

EXACT = (torch.tensor([1.0, -4.0]),)


@dataclass
class Case:
    ways: list[Candidate]
    ideal: float = 5.0
    tolerance: float = 1e-4

    @property
    def labels(self) -> dict[str, Any]:
        return {"sparsity": 0.8, "threads": 1}

    def candidates(self) -> list[Candidate]:
        return self.ways


class Way:
    """Returns what it is told to, and counts."""

    def __init__(self, role: str, result):
        self.role, self.result, self.calls = role, result, 0

    def candidate(self) -> Candidate:
        return Candidate("x", self.role, self.run, lambda got: relative_error(got, EXACT))

    def run(self):
        self.calls += 1
        if isinstance(self.result, Exception):
            raise self.result
        return (self.result,)


@pytest.mark.parametrize(
    "bad",
    [
        torch.tensor([1.0, -4.01]),
        torch.tensor([1.0, float("nan")]),
        torch.tensor([1.0]),
        torch.tensor([[1.0, -4.0]]),
        RuntimeError("this kernel cannot\nat all"),
    ],
)
def test_wrong_result_is_told_and_not_timed(bad):
    right, wrong = Way("dense", EXACT[0]), Way("sparse", bad)
    result = measure(Case([right.candidate(), wrong.candidate()]), Budget(4, 0, 1))
    assert [sample.role for sample in result.samples] == ["dense"] and right.calls == 1 + 1 + 4
    assert wrong.calls == 1 and list(result.wrong) == ["sparse: x"]
    assert "relative error" in result.wrong["sparse: x"] or result.wrong["sparse: x"] == "this kernel cannot"


def test_rounding_is_right():
    way = Way("sparse", EXACT[0] * (1 + 1e-5))
    result = measure(Case([Way("dense", EXACT[0]).candidate(), way.candidate()]), Budget(2, 0, 0))
    assert not result.wrong and result.samples[1].error == pytest.approx(1e-5, rel=0.1)


def test_nothing_to_compare_with_is_an_error():
    with pytest.raises(RuntimeError, match="expected a dense candidate"):
        measure(Case([Way("dense", -EXACT[0]).candidate(), Way("sparse", EXACT[0]).candidate()]), Budget(2, 0, 0))


def test_ratio_is_to_the_best_dense_and_efficiency_to_the_ideal():
    samples = [
        Sample(name, role, Spread(seconds, seconds, seconds, 2), 0.0)
        for name, role, seconds in [("slow", "dense", 9.0), ("fast", "dense", 6.0), ("cpu", "sparse", 2.0)]
    ]
    result = Result({}, 5.0, samples, {}, None)
    assert result.dense.name == "fast"
    assert result.ratio(samples[2]) == 3.0 and result.efficiency(samples[2]) == pytest.approx(0.6)


def test_error_is_that_of_the_worst_tensor_and_relative_to_its_largest_entry():
    exact = torch.tensor([0.0, 100.0]), torch.tensor([2.0])
    got = torch.tensor([1.0, 100.0]), torch.tensor([2.0])
    assert relative_error(got, exact) == pytest.approx(0.01)
    assert relative_error((torch.ones(0),), (torch.ones(0),)) == 0.0
    assert relative_error((torch.ones(1),), (torch.zeros(1),)) == 1.0
