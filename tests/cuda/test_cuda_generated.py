"""Kernels generated for a pattern: their source compiled by g++ against the definition, and by NVRTC for GPUs."""

from __future__ import annotations

import functools
import re
import subprocess

import pytest
import torch
from conv_cases import CASES
from on_host import CSRC, loader
from problem import OPERATIONS, assert_equals_definition, derivatives, masked, problem
from rounded import rounded
from test_cuda_compile import NVCC
from tolerances import assert_close

import sparsemeta as sm
from sparsemeta.backends import cuda, cuda_compile, cuda_generated, cuda_table
from sparsemeta.ops.conv import Conv

pytestmark = pytest.mark.extension
NVRTC = pytest.mark.skipif(bool(cuda_compile.missing()), reason=f"no compiler: {cuda_compile.missing()}")
NAMES = [
    "one-weight", "inner-layer-42", "odd-channels", "narrowing", "batch-0", "stride-2", "tasks",
    "tasks-shared-x-and-bias", "tasks-depthwise-sliced",
]  # fmt: skip


@pytest.fixture
def generated(emulated, monkeypatch, tmp_path):
    """Forward and input gradient of the backend by generated kernels, compiled for the CPU."""
    monkeypatch.setattr(cuda_compile, "load", loader(tmp_path))
    for name in ("masked_conv2d", "masked_conv2d_input_grad"):
        monkeypatch.setattr(cuda, name, functools.partial(getattr(cuda, name), way="generated"))


@pytest.mark.parametrize("case", [c for c in CASES if c.name in NAMES], ids=lambda case: case.name)
def test_equals_definition(case, generated):
    """To second order, with the weight gradient of the other way."""
    assert_equals_definition(case, derivatives(masked(case, "cuda"), problem(case, torch.float32)), torch.float32)


def test_small_tiles_and_bf16(generated, monkeypatch):
    monkeypatch.setattr(cuda_table, "processors", lambda device: 1000)
    [case] = [c for c in CASES if c.name == "tasks"]
    p, expected = rounded(case)
    actual = derivatives(masked(case, "cuda"), p)
    for name, wanted in expected.items():
        assert_close(actual[name], wanted, OPERATIONS[name], name)


@pytest.mark.parametrize("outputs", [1, 8, 9, 17, 33, 64, 65, 640])
def test_sums_fit_in_registers(outputs):
    large, small = cuda_generated.pixels_of(outputs)
    assert small == 1 and min(outputs, 64) * large <= 128
    assert min(outputs, 64) * 2 * large > 64 or large == 8


def test_reasons_name_what_is_missing_and_what_is_too_much(emulated, monkeypatch):
    conv = Conv.make(sm.Pattern.from_mask(torch.ones(64, 64, 3, 3).bool()), 1, 1, 1, 1, "cuda")
    [reason] = cuda.generated_reasons(conv, torch.device("cpu"))
    assert "at most 32768 products in its code, got 36864 kept weights x 2 pixels" in reason
    narrow = Conv.make(sm.Pattern.from_mask(torch.ones(8, 512, 3, 3).bool()), 1, 1, 1, 1, "cuda")
    assert "36864 kept weights x 8 pixels" in cuda.generated_reasons(narrow, torch.device("cpu"))[0]
    none = Conv.make(sm.Pattern.from_mask(torch.zeros(1, 1, 3, 3).bool()), 1, 1, 1, 1, "cuda")
    assert cuda.generated_reasons(none, torch.device("cpu")) == ["it needs at least one kept weight"]
    monkeypatch.setattr(cuda_compile, "missing", lambda: ["cuda-bindings is not installed"])
    assert cuda_compile.device_reasons(torch.device("cuda:0")) == ["cuda-bindings is not installed"]


def source_of(density: float, kind: int = cuda.FORWARD):
    pattern = sm.Pattern.from_mask(torch.rand(64, 64, 3, 3) < density)
    conv = Conv.make(pattern, 1, 1, 1, 1, "cuda")
    return cuda_table.one_table(kind, conv, (42, 42), 2, torch.device("cpu"), generated=True).plan.source()


@pytest.mark.skipif(not NVCC, reason="nvcc is neither in CUDA_HOME nor in PATH")
def test_nothing_is_spilled(emulated, tmp_path):
    """A layer of 64 to 64 channels at 95 %, the sums of 64 outputs x 2 pixels in registers."""
    source, gpus = tmp_path / "generated.cu", ("80", "90", "100")
    source.write_text(source_of(0.05))
    flags = ["-std=c++17", "-O3", "-Werror", "all-warnings", "-Xptxas", "-v", "-t", "0", f"-I{CSRC}"]
    flags += ["-DSPARSEMETA_ELEMENT=float", *(f"-gencode=arch=compute_{gpu},code=sm_{gpu}" for gpu in gpus)]
    command = [NVCC, *flags, "-c", source, "-o", tmp_path / "object.o"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = done.stdout + done.stderr
    assert re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores", told) == [("0", "0")] * len(gpus), told


@NVRTC
def test_nvrtc_compiles_and_remembers(emulated, monkeypatch, tmp_path):
    """A file that is there is read, not compiled again; other code has another file."""
    monkeypatch.setenv("SPARSEMETA_CACHE", str(tmp_path))
    headers, compiles = cuda_table.extension().source_headers(), []
    compile = cuda_compile._compile
    monkeypatch.setattr(cuda_compile, "_compile", lambda *a: compiles.append(a[-1]) or compile(*a))
    arguments = source_of(0.01), headers, {"SPARSEMETA_ELEMENT": "float"}
    code = cuda_compile.compiled(*arguments, "sm_90")
    assert code[:4] == b"\x7fELF" and b"masked_conv2d_generated" in code
    assert cuda_compile.compiled(*arguments, "sm_90") == code
    cuda_compile.compiled(*arguments, "sm_80")
    assert compiles == ["sm_90", "sm_80"]
    assert len(list((tmp_path / "cuda").glob("*.cubin"))) == 2


@NVRTC
def test_errors_of_the_compiler_are_told(monkeypatch, tmp_path):
    monkeypatch.setenv("SPARSEMETA_CACHE", str(tmp_path))
    with pytest.raises(RuntimeError, match="(?s)NVRTC cannot compile for sm_90: .*undefined_name"):
        cuda_compile.compiled("int a = undefined_name;", {}, {}, "sm_90")
