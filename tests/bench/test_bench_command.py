"""`sparsemeta bench conv` from end to end, on a tiny shape."""

from __future__ import annotations

import json
import re

import pytest
import torch
from sparsemeta.bench import machine
from sparsemeta.bench.measure import WrongResult
from typer.testing import CliRunner

from sparsemeta import backends
from sparsemeta.backends import tune_store
from sparsemeta.cli.bench import app

TINY = "conv --custom 2x4x5x5:4:3 --quick --threads 1 --fresh-memory"


def bench(line: str):
    return CliRunner().invoke(app, [*TINY.split(), *line.split()])


def test_json_has_every_figure(tmp_path):
    result = bench(f"--sparsity 0.5,0.75 --backend dense --json {tmp_path}/bench.json")
    assert result.exit_code == 0, result.output
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]
    content = json.loads((tmp_path / "bench.json").read_text())
    assert content.keys() == {"schema", "machine", "settings", "results"} and content["schema"] == 1
    assert content["settings"] == {"rounds": 3, "seconds": 0.0, "warm_up": 1, "freed_memory_kept": False}
    assert {"processor", "cores", "isa", "torch", "commit", "command"} <= content["machine"].keys()
    labels = [(row["labels"]["pass"], row["labels"]["sparsity"]) for row in content["results"]]
    assert labels == [(p, s) for p in ("forward", "forward+backward") for s in (0.5, 0.75)]
    for row in content["results"]:
        assert row.keys() == {"labels", "ideal", "best_dense", "samples", "wrong", "load"} and not row["wrong"]
        ways = {(s["role"], s["name"]) for s in row["samples"]}
        assert ways == {("dense", "contiguous"), ("dense", "channels_last"), ("sparse", "dense")}
        for sample in row["samples"]:
            times = sample["seconds"]
            assert 0 < times["lower"] <= times["median"] <= times["upper"] and times["rounds"] == 3
            assert sample["efficiency"] == pytest.approx(sample["ratio"] / row["ideal"])


def test_table_says_what_was_measured_and_how():
    output = bench("--sparsity 0.5 --pass forward --backend dense").output
    assert re.search(r"50%.*ms.*dense.*ms.*x.*2.00x.*%", output)
    assert "2x4x5x5 to 4, 3x3" in output and "freed memory given back to the system" in output


@pytest.mark.parametrize(("suffix", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_plot_is_written(tmp_path, suffix, magic):
    result = bench(f"--sparsity 0.5,0.75 --backend dense --plot {tmp_path}/speed.{suffix}")
    assert result.exit_code == 0, result.output
    [file] = tmp_path.iterdir()
    assert file.name == f"speed.{suffix}" and file.read_bytes().startswith(magic)


@pytest.mark.extension
def test_wrong_kernel_is_not_timed_and_fails_the_command(tmp_path, monkeypatch):
    kernel = backends.cpu.masked_conv2d
    monkeypatch.setattr(backends.cpu, "masked_conv2d", lambda *operands: kernel(*operands) * 1.001)
    result = bench(f"--sparsity 0.5 --pass forward --backend cpu,dense --json {tmp_path}/bench.json")
    assert isinstance(result.exception, WrongResult) and "sparse: cpu is wrong in 1 of 1 cases" in result.output
    [row] = json.loads((tmp_path / "bench.json").read_text())["results"]
    assert row["wrong"]["sparse: cpu"].startswith("relative error 0.001")
    assert {s["name"] for s in row["samples"]} == {"contiguous", "channels_last", "dense"}


@pytest.mark.extension
def test_default_backend_is_the_compiled_one():
    assert " cpu " in bench("--sparsity 0.5 --pass forward").output


@pytest.mark.extension
@pytest.mark.parametrize("command", ["conv --custom 2x4x5x5:4:3", "block --custom 2x4x6x6:4:3"])
def test_auto_is_measured_before_it_is_timed(monkeypatch, tmp_path, command):
    monkeypatch.setenv("SPARSEMETA_CACHE", str(tmp_path))
    tune_store.store.cache_clear()
    line = f"{command} --quick --threads 1 --fresh-memory --sparsity 0.5 --backend auto --pass forward+backward"
    result = CliRunner().invoke(app, line.split())
    known = {key.operation for key in tune_store.store().times}
    tune_store.store.cache_clear()
    assert result.exit_code == 0 and " auto " in result.output and known == set(tune_store.KERNELS)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--shapes lenet", "expected each shape to be one of conv4, resnet12, custom"),
        ("--shapes conv4", "expected --shapes custom and --custom 25x64x42x42:64:3:1:1 together"),
        ("--custom 2x4x5x6:4:3", "expected a shape like 25x64x42x42:64:3:1:1"),
        ("--sparsity high", "expected numbers with commas between, got 'high'"),
        ("--threads 1.5", "expected whole numbers"),
        ("--json no/such/folder.json", "expected an existing folder for folder.json"),
        ("--plot speed.txt", "expected a plot ending in .png"),
    ],
)
def test_bad_input_is_one_clear_error(line, message):
    error = bench(line).exception
    assert isinstance(error, ValueError) and message in str(error)


def test_machine_tells_no_folder(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/home/someone/bin/sparsemeta", "bench"])
    facts = machine.facts()
    assert facts["command"] == ["sparsemeta", "bench"] and "/home" not in json.dumps(facts)
    assert facts["torch"] == torch.__version__ and facts["cores"] >= 1 and facts["processor"]


def test_commit_is_that_of_this_code_or_none(monkeypatch, tmp_path):
    assert re.fullmatch(r"[0-9a-f]{40}\+?", machine.commit() or "0" * 40)
    monkeypatch.setattr(machine, "_ROOT", tmp_path)
    assert machine.commit() is None
