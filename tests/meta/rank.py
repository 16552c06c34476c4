"""One process of test_distributed's runs: trains the small network of conftest.py in float64."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from sparsemeta.meta import RankError, TrainConfig, train
from sparsemeta.meta.distributed import joined


def main(environment: dict[str, str], folder: Path, errors: Path, **options) -> None:
    """Exits with 5 where another process is gone or differs, with 7 where it was told to die."""
    os.environ.update(environment)
    sys.path.insert(0, str(Path(__file__).parent))  # of all the conftest.py, the one beside this file
    torch.set_num_threads(1)
    try:
        run(int(environment["RANK"]), folder, **options)
    except RankError as error:
        errors.write_text(str(error))
        sys.exit(5)


def run(rank: int, folder: Path, resume: bool = False, die_at: int = 0, seed_by_rank: bool = False) -> None:
    from conftest import NoisyClasses, make_net

    config = TrainConfig(
        ways=3, shots=2, queries=4, inner_steps=2, inner_lr=0.1, meta_batch=3, steps=4, checkpoint_every=2,
        validate_every=2, validate_tasks=5,
    )  # fmt: skip
    tasks, known = NoisyClasses(rank * seed_by_rank, dtype=torch.float64), NoisyClasses(9, dtype=torch.float64)
    with joined("cpu", timeout=60):
        train(
            make_net().double(), tasks, config, folder / "run.safetensors", resume, progress=False,
            on_step=lambda record: os._exit(7) if (record.step, rank) == (die_at, 1) else None,
            validation=known, log=folder / "log.jsonl",
        )  # fmt: skip
