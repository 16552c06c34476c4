"""Measuring: when, what is chosen, and that nothing else notices."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

import sparsemeta as sm
from sparsemeta import backends
from sparsemeta.backends import tune_measure, tune_route, tune_store

pytestmark = pytest.mark.extension
PATTERN = sm.Pattern.from_mask(torch.arange(4 * 3 * 9).view(4, 3, 3, 3) % 4 == 0)


def convolve(pattern: sm.Pattern = PATTERN, x: torch.Tensor | None = None) -> torch.Tensor:
    x = torch.ones(2, 3, 5, 5) if x is None else x
    return sm.masked_conv2d(x, torch.ones(pattern.nnz), pattern, padding=1)


class Clock:
    def __init__(self):
        self.now, self.calls = 0.0, []

    def __call__(self) -> float:
        return self.now

    def lasting(self, name: str, *seconds: float):
        times = iter(seconds)

        def call():
            self.calls.append(name)
            self.now += next(times, seconds[-1])

        return call


def test_median_of_warm_calls_in_turns():
    clock = Clock()
    calls = {"a": clock.lasting("a", 9.0, 1.0, 1.0, 8.0, 1.0), "b": clock.lasting("b", 9.0, 1.25)}
    times = tune_measure.measure(calls, clock)
    assert times == {"a": 1.0, "b": 1.25} and clock.calls == ["a", "b"] * (1 + tune_measure.LEAST_ROUNDS)


def test_hopeless_ones_get_no_further_rounds():
    clock = Clock()
    calls = {n: clock.lasting(n, s) for n, s in [("a", 1.0), ("b", 1.25), ("c", 2.0)]}
    assert tune_measure.measure(calls, clock) == {"a": 1.0, "b": 1.25, "c": 2.0}
    assert clock.calls.count("c") == 1 + tune_measure.LOOKS < clock.calls.count("a") == 1 + tune_measure.LEAST_ROUNDS


def test_a_look_that_another_program_breaks_into_condemns_nobody():
    clock = Clock()
    calls = {"a": clock.lasting("a", 1.0, 64.0, 64.0, 1.0), "b": clock.lasting("b", 2.0)}
    assert tune_measure.measure(calls, clock) == {"a": 1.0, "b": 2.0}


def test_short_ones_get_many_rounds_and_a_single_one_no_more_than_looks():
    clock = Clock()
    tune_measure.measure({"a": clock.lasting("a", 2**-13), "b": clock.lasting("b", 2**-13)}, clock)
    assert clock.calls.count("a") == 1 + tune_measure.MOST_ROUNDS
    assert tune_measure.measure({"c": clock.lasting("c", 5.0)}, clock)["c"] == pytest.approx(5.0)
    assert clock.calls.count("c") == 1 + tune_measure.LOOKS


@pytest.mark.parametrize("fastest", ["cpu", "contiguous", "channels_last"])
def test_the_fastest_is_taken(scripted, taken, fastest):
    scripted(**{"cpu": 2.0, "contiguous": 2.0, "channels_last": 2.0, fastest: 1.0})
    [(key, times)] = backends.tune(convolve).items()
    assert times[fastest] == 1.0 and key.images == (2, 3, 5, 5) and key.density == 0.25
    taken.clear()
    convolve()
    assert taken == [("masked_conv2d", fastest)]


def test_each_pass_has_a_choice_of_its_own(monkeypatch, taken):
    fastest = {"forward": "cpu", "weight gradient": "channels_last", "input gradient": "contiguous"}  # as they run
    monkeypatch.setattr(tune_route, "candidates", lambda key, conv: key)
    monkeypatch.setattr(tune_route, "measure", lambda key: {fastest[key.operation]: 1.0})
    x, values = torch.ones(2, 3, 5, 5, requires_grad=True), torch.ones(PATTERN.nnz, requires_grad=True)
    met = backends.tune(lambda: sm.masked_conv2d(x, values, PATTERN, padding=1).sum().backward())
    assert [key.operation for key in met] == list(fastest) and [route for _, route in taken] == list(fastest.values())


def test_measured_after_enough_calls_and_then_no_more(scripted, taken):
    measured = scripted(cpu=2.0, contiguous=1.0)
    for _ in range(tune_route.SIGHTINGS):
        convolve()
    assert not measured and {route for _, route in taken} == {"cpu"}
    for _ in range(5):
        convolve()
    assert len(measured) == 1 and [route for _, route in taken[tune_route.SIGHTINGS :]] == ["contiguous"] * 5


def test_a_process_waits_until_measuring_is_a_small_part_of_its_time(scripted):
    measured = scripted(cpu=1.0)
    tune_route._process.spent = 1e6
    for _ in range(tune_route.SIGHTINGS + 5):
        convolve()
    assert not measured
    tune_route._process.began -= 1e6 / tune_route.SHARE
    convolve()
    assert len(measured) == 1


def test_asked_for_there_is_no_limit(scripted):
    measured = scripted(cpu=1.0)
    tune_route._process.spent = 1e6
    backends.tune(convolve)
    assert len(measured) == 1 and tune_route._process.spent == 1e6


def test_cached_never_measures_but_takes_what_is_known(scripted, taken):
    measured = scripted(cpu=2.0, contiguous=1.0)
    assert backends.tuning("cached") == "on" and backends.tuning() == "cached"
    for _ in range(tune_route.SIGHTINGS + 5):
        convolve()
    assert not measured and taken[-1][1] == "cpu"
    backends.tune(convolve)
    assert backends.tuning() == "cached" and len(measured) == 1
    convolve()
    assert taken[-1][1] == "contiguous"


@pytest.mark.parametrize("how", ["off", "deterministic"])
def test_off_is_the_sparse_kernel_whatever_is_known(scripted, taken, how):
    scripted(cpu=2.0, contiguous=1.0)
    backends.tune(convolve)
    taken.clear()
    if how == "off":
        backends.tuning("off")
    else:
        torch.use_deterministic_algorithms(True)
    try:
        assert backends.select("auto", torch.ones(1)) == "cpu"
        convolve()
    finally:
        torch.use_deterministic_algorithms(False)
    assert taken == [("masked_conv2d", "cpu")]


def test_unknown_ones_are_guessed_by_density(taken):
    convolve()
    convolve(sm.Pattern.from_mask(torch.ones(4, 3, 3, 3) > 0))
    assert [route for _, route in taken] == ["cpu", "channels_last"]


def test_real_measurement_changes_neither_results_nor_random_state():
    x = torch.randn(2, 3, 5, 5)
    before, state = convolve(x=x), torch.get_rng_state()
    [times] = backends.tune(lambda: convolve(x=x)).values()
    assert set(times) == {"cpu", "contiguous", "channels_last"} and all(seconds > 0 for seconds in times.values())
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(convolve(x=x), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_pass_of_tasks_and_of_linear_layers_can_be_measured(dtype):
    linear = sm.Pattern.from_mask(torch.ones(4, 6) > 0)
    x, values = torch.ones(3, 2, 3, 5, 5, dtype=dtype), torch.ones(3, PATTERN.nnz, dtype=dtype)
    rows, weights = torch.ones(5, 6, dtype=dtype), torch.ones(linear.nnz, dtype=dtype)
    for leaf in (x, values, rows, weights):
        leaf.requires_grad_()

    def call():
        sm.masked_conv2d(x, values, PATTERN).sum().backward()
        sm.masked_linear(rows, weights, linear).sum().backward()

    met = backends.tune(call)
    assert sorted(len(times) for times in met.values()) == [3] * 3 + [4] * 3
    assert {key.dtype for key in met} == {str(dtype).removeprefix("torch.")}


def test_a_mode_that_is_none_is_refused():
    with pytest.raises(ValueError, match="expected tuning to be one of 'off', 'cached', 'on', got 'fast'"):
        backends.tuning("fast")
    code = "import sparsemeta as sm; print(sm.backends.tuning())"
    for given, told in [("on", "on"), ("", "cached")]:
        environment = {**os.environ, "SPARSEMETA_TUNING": given}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == told


def test_threads_and_types_are_measured_for_themselves(scripted):
    measured = scripted(cpu=1.0)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        backends.tune(convolve)
    assert [key.threads for key in measured] == [1, 2] and len(tune_store.store().times) == 2
