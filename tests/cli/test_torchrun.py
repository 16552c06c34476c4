"""`torchrun -m sparsemeta train`: two processes, one checkpoint, one line of output."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from sparsemeta.meta.checkpoint import load_checkpoint
from sparsemeta.meta.log import read_lines

RUN = ["--set", "data.classes=[8,8,8]", "--hidden", "4", "--steps", "3", "--queries", "2", "--tasks", "4",
       "--set", "validate_every=3", "--set", "validate_tasks=4", "--meta-batch", "3", "--threads", "1"]  # fmt: skip


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch is without distributed")
def test_torchrun_trains_as_one_process_does(call, tmp_path):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "sparsemeta"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    job = subprocess.run(
        [sys.executable, *launcher, "train", str(tmp_path / "two"), *RUN],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert job.returncode == 0, job.stderr
    assert job.stdout.count("accuracy on new tasks") == 1
    assert call("train", tmp_path / "one", *RUN).exit_code == 0
    two, one = (load_checkpoint(tmp_path / name) for name in ("two", "one"))
    # Float32 only: tests/meta/test_distributed.py compares weights, in float64.
    torch.testing.assert_close(two["history"][:, :2], one["history"][:, :2], rtol=1e-3, atol=1e-3)
    assert [line["step"] for line in read_lines(tmp_path / "two.jsonl")] == [1, 2, 3, 3]
