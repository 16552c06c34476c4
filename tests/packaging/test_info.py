"""The command of the installation that runs the tests."""

from __future__ import annotations

import json
import os
import sys

import pytest
from typer.testing import CliRunner

from sparsemeta import _build, cli
from sparsemeta.cli.info import cpu_flags, openmp_runtimes


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def test_help_lists_the_commands():
    assert "info" in invoke("--help")


def test_info_names_every_backend():
    output = invoke("info")
    assert "dense" in output and "cpu" in output and "ready" in output


@pytest.mark.extension
def test_info_as_json():
    facts = json.loads(invoke("info", "--json"))
    assert facts["backends"]["cpu"] == [] and facts["isa"] in facts["extension"]
    assert facts["torch"] and facts["threads"] >= 1
    assert facts["tuning"]["mode"] == "off" and facts["tuning"]["measured"] >= 0  # as tests/conftest.py says


@pytest.mark.extension
@pytest.mark.skipif(sys.platform != "linux", reason="runtimes are counted in /proc")
def test_one_openmp_runtime_serves_torch_and_the_extension():
    invoke("info")
    assert len(openmp_runtimes()) == 1


def test_extension_is_there_unless_left_out():
    """Without this a broken build, or a run that was meant to be without the extension, could pass unnoticed."""
    left_out = os.environ.get("SPARSEMETA_NO_EXTENSION", "0") != "0"
    assert ("baseline" in _build.variants()) != left_out
    assert bool(_build.missing()) == left_out


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ('{"sparsemeta._C": {"error": "command g++ failed"}}', "command g++ failed"),
        ('{"sparsemeta._C": {"variants": ["baseline"]}}', "another Python"),
        (None, "not installed"),
    ],
)
def test_missing_extension_names_reason_and_remedy(record, why, tmp_path, monkeypatch):
    monkeypatch.setattr(_build, "_RECORD", tmp_path / "record.json")
    monkeypatch.setattr(_build, "find_spec", lambda name: None)
    if record:
        (tmp_path / "record.json").write_text(record)
    [reason] = _build.missing()
    assert why in reason and "g++" in reason and "pip install" in reason
    assert _build.variants() == []


def test_missing_cuda_extension_names_reason_and_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(_build, "_RECORD", tmp_path / "record.json")
    monkeypatch.setattr(_build, "find_spec", lambda name: None)
    (tmp_path / "record.json").write_text('{"sparsemeta._C": {}, "sparsemeta._CUDA": {"error": "nvcc was not found"}}')
    [reason] = _build.missing("_CUDA")
    assert "nvcc was not found" in reason and "install g++ and nvcc" in reason
    assert _build.gpus() == []


def test_cpu_flags_are_known_ones():
    assert set(cpu_flags()) <= {"avx2", "fma", "avx512f", "avx512dq", "avx512bw", "avx512vl"}


def test_bad_input_is_one_line(monkeypatch):
    def fail() -> None:
        raise ValueError("expected a, got b; do c")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit, match="^sparsemeta: expected a, got b; do c$"):
        cli.main()
    monkeypatch.setenv("SPARSEMETA_TRACEBACK", "1")
    with pytest.raises(ValueError):
        cli.main()
