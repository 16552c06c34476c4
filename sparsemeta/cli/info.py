"""`sparsemeta info`: what this installation can run, and what to do about the rest."""

from __future__ import annotations

import json
import platform
import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sparsemeta import _build

_VECTOR_FLAGS = ("avx2", "fma", "avx512f", "avx512dq", "avx512bw", "avx512vl")


def info(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Print versions, threads, instruction set and, for each backend, ready or why not."""
    facts = collect()
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    console = Console()
    console.print(_overview(facts))
    console.print(_backends(facts["backends"]))
    if len(facts["openmp"]) > 1:
        console.print("More than one OpenMP runtime is loaded: their threads compete. Import torch first.")


def collect() -> dict:
    """Everything that `sparsemeta info --json` prints."""
    import torch  # here, so that `sparsemeta --help` does not wait for it

    from sparsemeta import __version__, backends
    from sparsemeta.backends.tune_store import store

    return {
        "sparsemeta": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu": cpu_flags(),
        "extension": _build.variants(),
        "cuda extension": _build.gpus(),
        "backends": (available := backends.available()),
        "isa": None if available["cpu"] else backends.cpu.isa(),
        "tuning": {"mode": backends.tuning(), "measured": len(store().times)},
        "openmp": openmp_runtimes(),  # last, when everything that could bring one is loaded
    }


def cpu_flags() -> list[str]:
    """The processor's vector instruction sets that the kernels know; empty outside Linux on x86."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(), re.M) if cpuinfo.exists() else None
    return [flag for flag in _VECTOR_FLAGS if flags and flag in flags[1].split()]


def openmp_runtimes() -> list[str]:
    """Files of the OpenMP runtimes mapped into this process; empty outside Linux."""
    maps = Path("/proc/self/maps")
    text = maps.read_text() if maps.exists() else ""
    return sorted(set(re.findall(r"/.*/lib(?:gomp|iomp5|omp)(?:-\w+)?\.so.*$", text, re.M)))


def _overview(facts: dict) -> Table:
    rows = {name: facts[name] for name in ("sparsemeta", "python", "torch", "threads")}
    rows["cpu"] = " ".join(facts["cpu"]) or platform.machine()
    rows["extension"] = " ".join(facts["extension"]) or "; ".join(_build.missing())
    rows["CUDA extension"] = " ".join(facts["cuda extension"]) or "; ".join(_build.missing("_CUDA"))
    rows["kernels in use"] = facts["isa"] or "none"
    rows["tuning"] = f"{facts['tuning']['mode']}, {facts['tuning']['measured']} measured (sparsemeta tune shows them)"
    rows["OpenMP runtimes"] = f"{len(facts['openmp'])} ({', '.join(Path(p).name for p in facts['openmp'])})"
    table = Table(show_header=False, box=None)
    for name, value in rows.items():
        table.add_row(name, escape(str(value)))
    return table


def _backends(available: dict[str, list[str]]) -> Table:
    table = Table("backend", "state")
    for name, reasons in available.items():
        table.add_row(name, escape("\n".join(reasons)) or "ready")
    return table
