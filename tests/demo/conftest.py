"""One quick demo, run once for all tests that look at its results."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from sparsemeta.cli import app


@pytest.fixture(autouse=True)
def _one_thread(_threads) -> None:
    torch.set_num_threads(1)


def command(out: Path, *options: str) -> Any:
    """`sparsemeta demo` in seconds, on one thread: the same sums every time."""
    quick = ["demo", "--quick", "--steps", "6", "--threads", "1"]
    return CliRunner().invoke(app, [*quick, "--out", str(out), *options])


@pytest.fixture
def run() -> Callable[..., Any]:
    return command


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> SimpleNamespace:
    """A finished demo: its folder, its figures and what it printed."""
    threads, out = torch.get_num_threads(), tmp_path_factory.mktemp("demo") / "out"
    result = command(out)
    torch.set_num_threads(threads)
    assert result.exit_code == 0, result.output
    figures = json.loads((out / "figures.json").read_text(encoding="utf-8"))
    return SimpleNamespace(out=out, output=result.output, figures=figures)
