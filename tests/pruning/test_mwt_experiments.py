"""The committed configurations, and the experiments at a size that takes seconds."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
from sparsemeta.bench.experiments import anp, mwt
from sparsemeta.bench.experiments.__main__ import check_folder
from sparsemeta.bench.experiments.results import Results
from sparsemeta.bench.experiments.setting import Setting
from sparsemeta.bench.experiments.table import accuracies, mean_accuracy

from sparsemeta.pruning.anp_plan import Plan
from sparsemeta.pruning.mwt_detection import Detector
from sparsemeta.pruning.search import Search

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "find").glob("*.toml"))
TINY = {
    "data": {"name": "glyphs", "classes": [12, 6, 6], "size": 16},
    "model": {"name": "conv4", "hidden": 4},
    "train": {"ways": 3, "queries": 2, "inner_lr": 0.2, "meta_batch": 2, "steps": 6},
    "test": {"tasks": 4, "queries": 2},
}


def tiny(kind: str, find: dict) -> Setting:
    tables = copy.deepcopy(TINY)
    return Setting({"experiment": {"kind": kind, "seeds": [0, 1]}, **tables, "find": {**find, "progress": False}})


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_committed_configurations_load_and_their_options_are_known(config):
    setting = Setting.read(config)
    run, find = setting.config(0), setting.tables["find"]
    if setting.tables["experiment"]["kind"] == "mwt":
        detector = Detector(**{key: value for key, value in find["mwt"].items() if key != "light_order"})
        assert (detector.checks + 1) * detector.every <= detector.cap < run.steps and 0 < find["rewind"] < run.steps
    else:
        plan = Plan.of(Search(find["sparsity"], run=run, options=find["anp"]))
        assert plan.fractions == pytest.approx([0.1] * 8 + [0.05])
    assert config.name in config.read_text().splitlines()[1], "the command in its comment is another file's"


def test_there_is_a_small_and_a_full_size_configuration():
    scales = {path.stem.rpartition("-")[2] for path in CONFIGS}
    assert scales == {"cpu", "gpu"} and {path.stem.partition("-")[0] for path in CONFIGS} == {"mwt", "anp"}


def test_the_light_search_against_its_controls(tmp_path):
    find = {"sparsity": 0.5, "exclude": ["head"], "rewind": 1, "mwt": {"every": 1, "checks": 1, "cap": 2}, "imp": {}}
    setting, results = tiny("mwt", find), Results(tmp_path / "seed-0.json")
    mwt.run(setting, tmp_path / "seed-0", 0, results)
    assert set(results) == {"search", *mwt.ARMS} and results["search"]["mwt"]["flops"] > 0
    assert results["search"]["mwt"]["flops"] < results["search"]["imp"]["flops"]
    text = mwt.tables({0: results})
    assert all(f"| {arm} |" in text for arm in (*mwt.ARMS, "FLOPs", "processor seconds"))

    again = Results(tmp_path / "seed-0.json")
    changed = {**again["dense"], "accuracy": -1.0}
    again.set("dense", changed)  # what is there is not made again
    mwt.run(setting, tmp_path / "seed-0", 0, again)
    assert again["dense"] == changed and again["mwt"] == results["mwt"]


def test_every_importance_starts_from_the_same_dense_network(tmp_path):
    setting = tiny("anp", {"sparsity": 0.2, "anp": {"retrain": 1, "tasks": 2}})
    results = Results(tmp_path / "seed-0.json")
    anp.run(setting, tmp_path / "seed-0", 0, results)
    names = {f"{name} {number}" for name in ("adapted", "unadapted", "magnitude") for number in (1, 2)}
    assert names < set(results) and results["adapted 2"]["sparsity"] == pytest.approx(0.2, abs=0.02)
    dense = [(tmp_path / "seed-0" / name / "round_0.safetensors").read_bytes() for name in ("adapted", "magnitude")]
    assert dense[0] == dense[1]
    minus = results[anp.MINUS]
    setting.tables["test"]["tasks"] *= anp.TIMES
    ours = anp.judged(setting, 0, tmp_path / "seed-0" / "adapted", 2)
    for name, number in (("dense", 0), ("unadapted", 2), ("magnitude", 2)):
        other = anp.judged(setting, 0, tmp_path / "seed-0" / name.replace("dense", "adapted"), number)
        assert minus[name]["accuracy"] == pytest.approx(ours["accuracy"] - other["accuracy"])
        assert 0 <= minus[name]["interval"] <= ours["interval"] + other["interval"] + 1e-9
    table, differences = anp.tables({0: results}).split("\n\n")
    assert table.count("\n| ") == 5  # below the header: a rule, dense twice, two rounds
    assert f"| {minus['magnitude']['accuracy']:.2f} ± " in differences and len(differences.splitlines()) == 3


def test_intervals_over_seeds_and_differences():
    a, b = {"accuracy": 90.0, "interval": 0.6}, {"accuracy": 92.0, "interval": 0.8}
    seeds = {0: {"dense": a, "mwt": b}, 1: {"dense": b, "mwt": b}}
    assert mean_accuracy("dense", seeds) == "91.00 ± 0.50 (90.00 to 92.00)"
    line = "| mwt | 92.00 ± 0.80 | 92.00 ± 0.80 | 92.00 ± 0.57 (92.00 to 92.00) | +1.00 (+0.00 to +2.00) |"
    assert line in accuracies(("dense", "mwt"), seeds)


def test_another_configuration_needs_another_folder(tmp_path):
    setting = tiny("anp", {})
    check_folder(tmp_path / "o", setting)
    check_folder(tmp_path / "o", setting)
    assert json.loads((tmp_path / "o" / "config.json").read_text()) == setting.tables
    with pytest.raises(ValueError, match=r"got other \['test'\]"):
        check_folder(tmp_path / "o", replace(setting, tables={**setting.tables, "test": {"tasks": 5}}))


def test_misuse_is_named(tmp_path):
    (tmp_path / "c.toml").write_text("[data]\nname = 'omniglot'")
    with pytest.raises(ValueError, match="expected the tables"):
        Setting.read(tmp_path / "c.toml")
    with pytest.raises(ValueError, match="expected the folder that holds omniglot"):
        _ = Setting({**tiny("mwt", {}).tables, "data": {"name": "omniglot"}}).splits
