"""Tests of the Triton kernels on CPU tensors: they need TRITON_INTERPRET=1 (`../test_interpreted.py` sets it)."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
import torch

# without the interpreter the kernels want a GPU, and without Triton there is nothing to collect
collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" and importlib.util.find_spec("triton") else ["*"]


@pytest.fixture(autouse=True)
def _one_thread_and_poison(_threads, poison) -> None:
    """The problems are small; what no kernel has written is NaN."""
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip everything, with the reason, where the interpreter itself does not work."""
    here = [item for item in items if item.path.parent == Path(__file__).parent]
    if here:
        from interpreter import objection  # of `../`: it imports Triton, which may be missing elsewhere

        for item in here if objection() else []:
            item.add_marker(pytest.mark.skip(reason=objection()))
