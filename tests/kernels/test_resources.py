"""Every Triton kernel compiles ahead of time, without a GPU, and needs no more of one than the recorded table says."""

from __future__ import annotations

import json
import os

import pytest

triton = pytest.importorskip("triton", reason="the compiler of the kernels is Triton's: pip install triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("what is interpreted cannot be compiled", allow_module_level=True)

from sparsemeta.bench import gpu_resources  # noqa: E402  it imports Triton

SHARED = 96 * 1024  # bytes, of the 164 KB or more of an sm_80 or sm_90 multiprocessor: two programs fit at once
RECORDED = json.loads(gpu_resources.TABLE.read_text())
SAME = RECORDED["triton"] == triton.__version__


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch) -> None:
    """Compiled anew: a program kept from an earlier run would prove nothing."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def chosen(name: str, architecture: int) -> bool:
    """Of convolutions for the older architecture one arithmetic and layout: all would take a minute more."""
    convolution = name.startswith(("forward", "input gradient", "weight gradient"))
    return architecture > 80 or not convolution or name.endswith("tf32, channels_last")


@pytest.mark.parametrize("architecture", gpu_resources.ARCHITECTURES)
def test_every_program_compiles_fits_and_spills_nothing(architecture):
    recorded = RECORDED["resources"][f"sm_{architecture}"]
    programs = {program.name: program for program in gpu_resources.programs()}
    assert programs.keys() == recorded.keys(), f"run python -m {gpu_resources.__name__}"
    found = {name: p.compile(architecture) for name, p in programs.items() if chosen(name, architecture)}
    for name, row in found.items():
        assert row["spilled"] == 0 and row["registers"] <= 255 and row["shared"] <= SHARED, (name, row)
    if SAME:  # another version of the compiler allocates otherwise
        assert found.items() <= recorded.items(), f"run python -m {gpu_resources.__name__}"


def test_tensor_cores_multiply_whatever_is_not_strict_float32():
    for architecture, rows in RECORDED["resources"].items():
        for name, row in rows.items():
            if name.startswith(("forward", "input gradient", "weight gradient")):
                strict = ", float32" in name
                assert (row["products"] in ("fma", "none")) == strict, (architecture, name, row)
