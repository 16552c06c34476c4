"""The cases of `make gpu`, small and on CPU tensors: what is timed there is checked here."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from sparsemeta.bench import gpu, gpu_ceilings, gpu_sanitizer
from sparsemeta.bench.cases import gpu_conv, gpu_meta, gpu_norm, gpu_tasks
from sparsemeta.bench.cases.conv_shapes import ConvShape
from sparsemeta.bench.cases.meta_shapes import MetaShape


def found(case) -> set[str]:
    """Names of the candidates, all of which are right."""
    errors = {candidate.name: candidate.error(candidate.run()) for candidate in case.candidates()}
    assert all(error <= case.tolerance for error in errors.values()), errors
    return set(errors)


@pytest.fixture(autouse=True)
def _precision():
    """The cases set PyTorch's own switch."""
    cudnn = torch.backends.cudnn
    before = cudnn.conv.fp32_precision, cudnn.benchmark
    yield
    cudnn.conv.fp32_precision, cudnn.benchmark = before


@pytest.mark.parametrize("arithmetic", gpu_conv.ARITHMETIC)
def test_every_candidate_of_a_case_is_right(arithmetic, monkeypatch):
    monkeypatch.setattr(gpu_conv, "CALLS", 1)
    small = gpu_conv.cases([ConvShape(2, 32, 32, 5)], ["16x16"], [0.5], "cpu")
    case = next(c for c in small if c.arithmetic == arithmetic and c.conv.passes == "forward+backward")
    assert found(case) == {"contiguous", "channels_last", "triton contiguous", "triton channels_last"}
    assert case.ideal == 2.0 and case.labels["operations"] == 3 * 2 * 32 * 32 * 9 // 2 * 2 * 25


def test_parts_without_a_result_are_those_that_run(tmp_path):
    every = [*gpu.PARTS, *gpu.CHECKS]
    assert gpu.missing(tmp_path, "h200") == every
    gpu.result(tmp_path, "h200", every[0]).touch()
    assert gpu.missing(tmp_path, "h200") == every[1:]
    assert gpu.slug("NVIDIA H200") == "h200" and gpu.slug("NVIDIA A100-SXM4-80GB") == "a100-sxm4-80gb"


def test_an_unknown_part_and_a_missing_gpu_are_named():
    with pytest.raises(ValueError, match="conv4-16x16.*got conv5"):
        gpu.main(["conv5"])
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="expected a CUDA device"):
            gpu.main([])


@pytest.mark.parametrize("arithmetic", gpu_norm.TOLERANCES)
def test_every_way_of_norm_act_pool_is_right(arithmetic, monkeypatch):
    monkeypatch.setattr(gpu_norm, "_repeated", lambda run, device: run)
    case = next(c for c in gpu_norm.cases([(2, 4, 6)], "cpu") if c.arithmetic == arithmetic)
    assert found(case) == {"contiguous", "channels_last", "triton contiguous", "triton channels_last"}


@pytest.mark.parametrize("kind", ["tf32", "bfloat16"])
def test_every_way_of_a_convolution_with_tasks_is_right(kind, monkeypatch):
    monkeypatch.setattr(gpu_tasks, "_repeated", lambda run, device: run)
    made = gpu_tasks.cases([ConvShape(2, 16, 16, 4)], ["16x16"], [0.5], 2, "cpu")
    assert found(next(c for c in made if c.arithmetic == kind)) == {"one by one", "vmap", "grouped", "triton"}


@pytest.mark.parametrize("order", ["first", "second"])
def test_every_way_of_a_meta_step_is_right(order):
    shape = MetaShape(16, channels=1, shots=1, hidden=16, ways=2, queries=2, steps=1)
    [case] = gpu_meta.cases([shape], ["16x16"], [0.5], 2, "cpu", [order])
    assert found(case) == {
        "dense contiguous", "dense channels_last", "dense all tasks", "sparse channels_last", "sparse all tasks"
    }  # fmt: skip


def test_bytes_and_operations_are_counted_against_the_ceilings():
    sample = {"role": "sparse", "seconds": {"median": 4.0}}
    labels = {"calls": 2, "bytes": 100, "operations": 60, "arithmetic": "tf32"}
    content = {"results": [{"labels": labels, "samples": [sample, {**sample, "role": "dense"}]}]}
    ceilings = {"bytes_per_second": 200.0, "operations_per_second": {"tf32": 300.0}}
    counted = gpu_ceilings.counted(content, ceilings)
    ours, dense = counted["results"][0]["samples"]
    assert (ours["of_copy"], ours["of_peak"]) == (0.25, 0.1) and "of_peak" not in dense
    assert counted["ceilings"] == ceilings


def test_the_sanitizer_runs_a_few_tests_or_says_why_not(monkeypatch):
    monkeypatch.setattr(gpu_sanitizer.shutil, "which", lambda name: None)
    assert "not installed" in gpu_sanitizer.sanitized()["skipped"]
    monkeypatch.setattr(gpu_sanitizer.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(gpu_sanitizer, "TESTS", Path(__file__).parents[2])  # an installation has none beside it
    commands = []

    def run(command, **options):
        commands.append(command)
        return SimpleNamespace(returncode=9 if "racecheck" in command else 0, stdout="a race", stderr="")

    told = gpu_sanitizer.sanitized(run)
    assert set(told["memcheck"].values()) == {"no errors"} and set(told["racecheck"].values()) == {"a race"}
    assert all(Path(command[-1]).exists() for command in commands) and len(commands) == 2 * len(gpu_sanitizer.SMALL)


@pytest.fixture
def processes(monkeypatch):
    """Parts that a run starts, on a machine with a GPU; the second fails, and the third is not done in time."""
    started = []

    def run(command, timeout):
        started.append(command[3])
        if len(started) == 3:
            raise subprocess.TimeoutExpired(command, timeout)
        return SimpleNamespace(returncode=len(started) - 1)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "device_name", lambda: "h200")
    monkeypatch.setattr(gpu.subprocess, "run", run)
    return started


def test_a_part_that_fails_keeps_no_other_from_being_measured_but_time_does(processes, tmp_path, capsys):
    first, second, third, *_ = gpu.PARTS
    with pytest.raises(RuntimeError, match=f"to be measured, {second} failed"):
        gpu.main([], tmp_path / "new", seconds=60)
    assert processes == [first, second, third] and f"stopped {third} after 60 s" in capsys.readouterr().out


def test_a_part_by_its_name_is_run_here(processes, tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(gpu, "run_part", lambda name, file: ran.append((name, file)))
    gpu.main(["sanitizer"], tmp_path)
    assert ran == [("sanitizer", tmp_path / "h200-sanitizer.json")] and not processes
