"""The search over Lambda patterns: right figures, right choice, and a file to go on from."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics

import pytest
import torch
from rich.console import Console
from sparsemeta.bench.timing import Budget
from torch import nn

import sparsemeta as sm
from sparsemeta.meta import MAML, TrainConfig, lambda_search
from sparsemeta.meta.lambda_adapt import LambdaAdaptation
from sparsemeta.meta.lambda_pattern import LambdaPattern
from sparsemeta.meta.lambda_records import PatternRecord, records_of, summed_up
from sparsemeta.meta.lambda_report import plot, save_json, table

QUICK = {"tasks": 6, "timing": Budget(2, 0.0, 0), "progress": False}


@pytest.fixture
def config(settings) -> TrainConfig:
    return TrainConfig(**settings, eval_inner_steps=3)


def test_accuracies_are_those_of_evaluate_and_of_the_pattern(net, sampler, config):
    model = net()
    found = lambda_search(model, sampler(noise=2.0), config, **QUICK)
    assert {r.pattern for r in found.records} == {"11", "01", "10"} and found.reference.pattern == "11"
    judged = sm.meta.evaluate(model, sampler(noise=2.0), config, tasks=6)
    assert (found.reference.accuracy, found.reference.interval) == pytest.approx((judged.accuracy, judged.interval))
    assert (found.reference.gain, found.reference.gain_interval) == (0, 0)

    adaptation = LambdaAdaptation(MAML(model, lr=config.inner_lr), LambdaPattern("01"))
    drawn, percent = sampler(noise=2.0).sample(6), []
    for i in range(6):
        logits = adaptation(drawn.support_x[i], drawn.support_y[i], 3)(drawn.query_x[i])
        percent.append(100 * (logits.argmax(1) == drawn.query_y[i]).float().mean().item())
    [record] = [r for r in found.records if r.pattern == "01"]
    assert record.accuracy == pytest.approx(statistics.mean(percent))
    assert record.gain == pytest.approx(record.accuracy - found.reference.accuracy)
    assert 0 < record.lower <= record.seconds <= record.upper


def test_the_interval_of_a_gain_is_that_of_paired_tasks():
    accuracies = {"11": [50.0, 60.0, 90.0], "01": [40.0, 60.0, 86.0]}
    records = records_of(accuracies, {"11": (1.0, 2.0, 3.0), "01": (0.5, 0.75, 1.0)}, "11")
    assert [r.pattern for r in records] == ["11", "01"] and records[1].gain == pytest.approx(-14 / 3)
    assert records[1].gain_interval == pytest.approx(1.96 * statistics.stdev([-10, 0, -4]) / math.sqrt(3))


def test_model_sampler_and_generators_are_left_as_they_were(net, sampler, config):
    model, tasks = net(track_running_stats=True, dropout=0.5), sampler()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    place, random = tasks.state_dict(), torch.get_rng_state()
    lambda_search(model, tasks, config, **QUICK)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(tasks.state_dict()["generator"], place["generator"]) and model.training
    assert torch.equal(torch.get_rng_state(), random) and all(p.grad is None for p in model.parameters())


def test_a_ticket_against_its_dense_model(sampler, config):
    dense = sm.models.Conv4(3, 1, 4, 16)
    model = sm.sparsify(dense, sm.Ticket.magnitude(dense, 0.5))
    found = lambda_search(model, sampler(size=16), config, ["11111/00011/00001"], reference=dense, **QUICK)
    assert {r.pattern for r in found.records} == {"11111", "11111/00011/00001", "reference"}
    judged = sm.meta.evaluate(dense, sampler(size=16), config, tasks=6)
    assert found.reference.accuracy == pytest.approx(judged.accuracy) and dense.training


@pytest.mark.parametrize("rate", [0.1, torch.tensor(0.1)], ids=["number", "tensor"])
def test_the_compiled_chain_judges_as_autograd_does(sampler, config, rate):
    if sm.backends.cpu.missing():
        pytest.skip("without the compiled kernels there is no chain")
    learner = MAML(sm.models.Conv4(3, 1, 4, 16), lr=rate)
    chain, autograd = (
        lambda_search(learner, sampler(size=16), dataclasses.replace(config, engine=engine), ["00111"], **QUICK)
        for engine in ("chain", "autograd")
    )
    for a in chain.records:
        [b] = [b for b in autograd.records if a.pattern == b.pattern]
        assert a.accuracy == pytest.approx(b.accuracy, abs=100 / 12 / 6 + 1e-6), "all but one query on its edge"


def record(pattern: str, seconds: float, accuracy: float) -> PatternRecord:
    return PatternRecord(pattern, accuracy, 1.0, 0.0, 1.0, seconds, seconds, seconds)


RECORDS = [record("001", 1.0, 80.0), record("010", 2.0, 79.0), record("011", 3.0, 91.0), record("111", 9.0, 90.0)]


@pytest.mark.parametrize(
    ("delta", "budget", "expected"),
    [(0.0, None, "011"), (9.9, None, "011"), (10.0, None, "001"), (0.0, 2.5, "001"), (0.0, 9.0, "011"), (0, 0.5, None)],
)
def test_the_choice(delta, budget, expected):
    found = summed_up(RECORDS[::-1], "111", delta, budget, {})
    assert (found.chosen and found.chosen.pattern) == expected
    rule = f"fastest within {delta:g} points of 111" if budget is None else f"best accuracy within {budget * 1e3:g} ms"
    assert found.rule == rule


def test_another_model_is_compared_with_but_not_taken():
    compared = record("reference", 0.5, 92.0)
    found = summed_up([*RECORDS, compared], "reference", 1.0, None, {})
    assert found.chosen.pattern == "011" and found.reference is compared and found.speedup(RECORDS[0]) == 0.5
    assert summed_up([*RECORDS, compared], "reference", 0.5, None, {}).chosen is None
    assert summed_up([*RECORDS, compared], "reference", 0.0, 0.7, {}).chosen is None


def test_the_pareto_front_and_the_reports(tmp_path):
    found = summed_up(RECORDS, "111", 1.0, None, {"tasks": 5})
    assert [r.pattern for r in found.front] == ["001", "011"] and found.speedup(RECORDS[0]) == 9
    console = Console(width=200, record=True)
    console.print(table(found))
    text = console.export_text()
    assert "9.00x" in text and "fastest within 1 points of 111" in text
    save_json(found, tmp_path / "s.json")
    content = json.loads((tmp_path / "s.json").read_text())
    assert content["chosen"] == "011" and content["records"][0]["speedup"] == 9 and content["front"] == ["001", "011"]
    plot(found, tmp_path / "s.png")
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    plot(dataclasses.replace(found, chosen=None), tmp_path / "s.svg")


def test_a_stopped_search_goes_on(net, sampler, config, tmp_path, monkeypatch):
    model, file, right = net(), tmp_path / "new" / "results.json", LambdaAdaptation.__call__
    counts = {"11": 0, "10": 0, "01": 0}

    def counted(adaptation, *args):
        counts[str(adaptation.pattern)] += 1
        if sum(counts.values()) == 15:
            raise KeyboardInterrupt
        return right(adaptation, *args)

    monkeypatch.setattr(LambdaAdaptation, "__call__", counted)
    with pytest.raises(KeyboardInterrupt):
        lambda_search(model, sampler(), config, results=file, **QUICK)
    assert counts == {"11": 6, "10": 6, "01": 3}
    resumed = lambda_search(model, sampler(), config, results=file, **QUICK)
    assert counts == {"11": 8, "10": 8, "01": 11}, "the accuracies of one pattern, and two rounds of all"
    again = lambda_search(model, sampler(), config, results=file, **QUICK)
    assert again == resumed and sum(counts.values()) == 27
    anew = lambda_search(model, sampler(), config, results=file, retime=True, **QUICK)
    assert sum(counts.values()) == 33 and {r.pattern for r in anew.records} == counts.keys(), "two rounds of all again"
    whole = lambda_search(model, sampler(), config, **QUICK)
    assert {r.pattern: r.accuracy for r in whole.records} == {r.pattern: r.accuracy for r in resumed.records}


def test_results_of_something_else_are_refused(net, sampler, config, tmp_path):
    model, file = net(), tmp_path / "results.json"
    lambda_search(model, sampler(), config, ["01"], results=file, **QUICK)

    def refused(model: nn.Module = model, tasks=None, config=config) -> str:
        with pytest.raises(ValueError, match="expected the results of") as error:
            lambda_search(model, tasks or sampler(), config, ["01"], results=file, **QUICK)
        return str(error.value)

    other = net()
    with torch.no_grad():
        other[0].bias += 1
    assert "differs in model." in refused(other)
    assert "differs in tasks." in refused(tasks=sampler(seed=1))
    assert "differs in inner_lr." in refused(config=dataclasses.replace(config, inner_lr=0.2))
    for content in ("[]", "{}", "{", '{"version": 9}'):
        file.write_text(content)
        assert "got something else" in refused()


def test_bad_numbers_and_patterns(net, sampler, config):
    for bad in ({"tasks": 1}, {"delta": -1}, {"delta": math.nan}, {"budget": 0.0}):
        with pytest.raises(ValueError, match="tasks >= 2, delta >= 0 and budget > 0"):
            lambda_search(net(), sampler(), config, progress=False, **bad)
    with pytest.raises(ValueError, match="pattern of 2 bits"):
        lambda_search(net(), sampler(), config, ["00111"], **QUICK)
    with pytest.raises(ValueError, match="one for each of 3 inner steps"):
        lambda_search(net(), sampler(), config, ["01/11"], **QUICK)
