"""Schedules end at what was asked, and go there as their papers say."""

from __future__ import annotations

import pytest

from sparsemeta.pruning import SCHEDULES, schedule


def near(expected):
    return pytest.approx(expected, abs=1e-12)


def test_iterative_prunes_a_fifth_of_the_rest():
    assert schedule("iterative", 0.8) == near((0.2, 0.36, 0.488, 0.5904, 0.67232, 0.737856, 0.8))
    assert len(schedule("iterative", 1 - 0.8**6)) == 6  # the 73.79 % of the elastic tickets
    assert schedule("iterative", 0.75, fraction=0.5) == near((0.5, 0.75))
    assert schedule("iterative", 0.1) == (0.1,)


def test_one_shot():
    assert schedule("one-shot", 0.8) == (0.8,)


def test_exponential_keeps_the_same_fraction_each_round():
    kept = [1, *(1 - s for s in schedule("exponential", 0.9, rounds=20))]
    assert len(kept) == 21 and [b / a for a, b in zip(kept, kept[1:], strict=False)] == near([0.1**0.05] * 20)


def test_gradual_is_cubic():
    assert schedule("gradual", 0.8, rounds=4) == near((0.4625, 0.7, 0.7875, 0.8))
    assert schedule("gradual", 0.8, rounds=2, start=0.4) == near((0.75, 0.8))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("sparsity", [0, 0.07, 0.5, 0.99])
def test_they_rise_to_what_was_asked(name, sparsity):
    levels = schedule(name, sparsity)
    assert levels[-1] == sparsity and list(levels) == sorted(levels)


BAD = {
    "name": (("cubic", 0.8), {}, "expected schedule to be one of one-shot, iterative.*got 'cubic'"),
    "sparsity": (("gradual", 1.0), {}, "got 1.0"),
    "fraction": (("iterative", 0.8), {"fraction": 1.0}, "got 1.0"),
    "rounds": (("gradual", 0.8), {"rounds": 0}, "got 0"),
    "start": (("gradual", 0.8), {"start": 0.9}, "from 0 to 0.8, got 0.9"),
}


@pytest.mark.parametrize(("arguments", "options", "message"), BAD.values(), ids=BAD)
def test_bad_arguments(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        schedule(*arguments, **options)
