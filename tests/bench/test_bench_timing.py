"""Taking turns, and the figures that come of it."""

from __future__ import annotations

import gc

import pytest
from sparsemeta.bench.timing import Budget, Spread, interleaved


class Work:
    """Calls of known duration on a clock of their own."""

    def __init__(self):
        self.now, self.calls, self.collecting = 0.0, [], []

    def clock(self) -> float:
        return self.now

    def lasting(self, name: str, *seconds: float):
        times = iter(seconds)

        def call():
            self.calls.append(name)
            self.collecting.append(gc.isenabled())
            self.now += next(times)

        return call


def test_spread_is_median_and_quartiles():
    assert Spread.of([5.0, 1.0, 2.0, 4.0, 3.0]) == Spread(3.0, 2.0, 4.0, 5)
    assert Spread(3.0, 2.0, 4.0, 5).relative == pytest.approx(2 / 3)


def test_each_call_gets_its_own_times_and_warm_up_does_not_count():
    work = Work()
    calls = {"a": work.lasting("a", 100.0, 1.0, 2.0, 9.0), "b": work.lasting("b", 100.0, 10.0, 10.0, 20.0)}
    spread = interleaved(calls, Budget(rounds=3, seconds=0, warm_up=1), work.clock)
    assert (spread["a"].median, spread["b"].median) == (2.0, 10.0)
    assert spread["a"].rounds == spread["b"].rounds == 3


def test_every_round_runs_every_call_once_and_not_always_in_the_same_order():
    work, rounds = Work(), 20
    interleaved({n: work.lasting(n, *[1.0] * 99) for n in "abc"}, Budget(rounds, 0, 0), work.clock)
    turns = ["".join(work.calls[i : i + 3]) for i in range(0, 3 * rounds, 3)]
    assert {"".join(sorted(turn)) for turn in turns} == {"abc"} and len(work.calls) == 3 * rounds
    assert len(set(turns)) > 2


def test_goes_on_until_both_rounds_and_seconds_are_spent():
    work = Work()
    assert interleaved({"a": work.lasting("a", *[1.0] * 99)}, Budget(3, 10, 0), work.clock)["a"].rounds == 10
    assert interleaved({"a": work.lasting("a", *[9.0] * 99)}, Budget(3, 10, 0), work.clock)["a"].rounds == 3


def test_no_garbage_collection_inside_the_times_and_as_before_afterwards():
    work = Work()
    interleaved({"a": work.lasting("a", 1.0, 1.0)}, Budget(2, 0, 0), work.clock)
    assert work.collecting == [False, False] and gc.isenabled()


@pytest.mark.parametrize("wrong", [{"rounds": 1}, {"seconds": -1.0}, {"warm_up": -1}])
def test_budget_without_a_spread_is_refused(wrong):
    with pytest.raises(ValueError, match="expected at least 2 rounds"):
        Budget(**wrong)
