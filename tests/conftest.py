"""Fixtures of every test: fixed seeds, threads as they were, and uninitialised memory that shows."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

os.environ.setdefault("SPARSEMETA_TUNING", "off")  # no test depends on what is fast here, but for those of the choice
NO_EXTENSION = os.environ.get("SPARSEMETA_NO_EXTENSION", "0") != "0"
FORCED_ISA = "SPARSEMETA_ISA" in os.environ


def pytest_report_header() -> str:
    """Say which installation and which kernels this run tests."""
    import sparsemeta
    from sparsemeta import backends

    ready = [name for name, reasons in backends.available().items() if not reasons]
    return f"sparsemeta: {Path(sparsemeta.__file__).parent}, backends: {', '.join(ready)}, isa: {backends.cpu.isa()}"


def pytest_configure() -> None:
    """Share the cores among the processes of pytest-xdist: OpenMP threads that compete spin."""
    if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
        torch.set_num_threads(max(1, torch.get_num_threads() // int(workers)))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the tests of the extension, but only where it is known to be missing: a broken build has to fail.

    With a forced instruction set those of other backends than `cpu` are left out: they do not depend on it.
    """
    skip = pytest.mark.skip(reason="SPARSEMETA_NO_EXTENSION is set: this installation has no extension")
    for item in items:
        if NO_EXTENSION and (backend_of(item) == "cpu" or item.get_closest_marker("extension")):
            item.add_marker(skip)
    if FORCED_ISA:
        others = [item for item in items if backend_of(item) in ("dense", "cuda")]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if backend_of(item) not in ("dense", "cuda")]


def backend_of(item: pytest.Item) -> str | None:
    """The backend of a test that goes through them."""
    return item.callspec.params.get("backend") if hasattr(item, "callspec") else None


@pytest.fixture(autouse=True)
def _seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """A test may call `torch.set_num_threads`; the next one does not notice."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def poison() -> Iterator[None]:
    """Fill what `torch.empty` and its relatives return with NaN (integers: the maximum), so unwritten elements fail."""
    mode = torch.get_deterministic_debug_mode()
    torch.use_deterministic_algorithms(True, warn_only=True)  # PyTorch fills uninitialised memory in this mode
    yield
    torch.set_deterministic_debug_mode(mode)


@pytest.fixture(autouse=True)
def _poison_operations(request: pytest.FixtureRequest) -> None:
    if request.path.is_relative_to(Path(__file__).parent / "ops"):
        request.getfixturevalue("poison")
