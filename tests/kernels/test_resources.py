"""Every Triton kernel compiles ahead of time, without a GPU, and needs no more of one than the recorded tables say."""

from __future__ import annotations

import json
import os

import pytest

triton = pytest.importorskip("triton", reason="the compiler of the kernels is Triton's: pip install triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("what is interpreted cannot be compiled", allow_module_level=True)

from sparsemeta.bench import gpu_resources  # noqa: E402  it imports Triton

SHARED = 96 * 1024  # bytes, of the 164 KB or more of an sm_80 or sm_90 multiprocessor: two programs fit at once
TABLES = {file.name: json.loads(file.read_text()) for file in gpu_resources.RESULTS.glob("triton-*-resources.json")}
ADVICE = f"run python -m {gpu_resources.__name__}, with each Triton of {', '.join(sorted(TABLES))}"
NARROW = 24  # loads of the rows of the table, the weights over several taps and the bias: none is of images


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch) -> None:
    """Compiled anew: a program kept from an earlier run would prove nothing."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def chosen(name: str, architecture: int) -> bool:
    """Of convolutions for the older architecture one arithmetic and layout: all would take a minute more."""
    convolution = name.startswith(("forward", "input gradient", "weight gradient"))
    return architecture > 80 or not convolution or name.endswith("tf32, channels_last")


def convolutions(rows: dict) -> dict:
    """The programs of convolutions."""
    return {n: row for n, row in rows.items() if n.startswith(("forward", "input gradient", "weight gradient"))}


def assert_good(rows: dict) -> None:
    """Nothing is spilled, two programs fit at once, and images are loaded along the memory, as wide as can be."""
    for name, row in rows.items():
        assert row["spilled"] == 0 and row["registers"] <= 255 and row["shared"] <= SHARED, (name, row)
    for name, row in convolutions(rows).items():
        assert (row["products"] in ("fma", "none")) == (", float32" in name), (name, row)
        last = name.endswith("channels_last")
        assert row["lanes"] == ("channels" if last else "pixels"), (name, row)
        if last and (name.startswith("forward") or "float16" in name):  # TF32 wants what it sums over side by side
            assert "16" in row["loads"] and sum(row["loads"].values()) - row["loads"]["16"] <= NARROW, (name, row)


@pytest.mark.parametrize("architecture", gpu_resources.ARCHITECTURES)
def test_every_program_compiles_and_is_good(architecture):
    found = {p.name: p.compile(architecture) for p in gpu_resources.programs() if chosen(p.name, architecture)}
    assert_good(found)
    if recorded := TABLES.get(gpu_resources.TABLE.name):  # another version of the compiler allocates otherwise
        assert found.items() <= recorded[f"sm_{architecture}"].items(), ADVICE


@pytest.mark.parametrize("table", TABLES)
def test_every_program_of_every_table_is_good(table):
    names = {program.name for program in gpu_resources.programs()}
    for rows in TABLES[table].values():
        assert rows.keys() == names, ADVICE
        assert_good(rows)
