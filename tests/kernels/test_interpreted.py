"""Runs the tests in `interpreted/` in a process of their own: Triton decides at import how its functions run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def test_a_triton_whose_interpreter_fails_with_this_numpy_is_known():
    pytest.importorskip("triton", reason="the interpreter of the kernels is Triton's: pip install triton")
    from interpreter import objection

    assert "NumPy 2.5.0" in objection("3.6.0", "2.5.0")
    assert objection("3.6.0", "2.3.5") is objection("3.7.0", "2.4.6") is objection("3.10.0+git", "2.10") is None


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="this process interprets and runs them itself")
def test_kernels_through_the_interpreter():
    pytest.importorskip("triton", reason="the interpreter of the kernels is Triton's: pip install triton")
    from interpreter import objection

    if reason := objection():
        pytest.skip(reason)
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}  # NumPy on one thread: it is all small
    environment = {name: value for name, value in environment.items() if not name.startswith("PYTEST_")}  # xdist's own
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-o", "addopts=", "--rootdir", str(ROOT)]
    command += ["-c", str(ROOT / "pyproject.toml"), str(HERE / "interpreted")]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)  # here: of this installation
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    print(run.stdout.splitlines()[-1])
