"""An experiment from its configuration to its table; run again, it goes on where it was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from ..data import Splits
from ..demo.machine import describe
from ..files import write_atomically
from .block_shapes import BlockShapesRun
from .experiment_config import Experiment
from .experiment_table import as_markdown
from .family import FamilyRun
from .records import Record, Records


def experiment(config: Experiment, splits: Splits, out: Path) -> list[Record]:
    """Run what is not in `out` yet, and write `results.json` and `results.md` there after each part that is done.

    A run that was interrupted goes on from its last checkpoint, and what is finished is not run again.

    Args:
        config: what to run.
        splits: `[family]` takes the training classes as a supervised data set, `[blocks]` meta-trains on them and is
            judged on the test classes. Everything is computed on the device where they are.
        out: folder for results, tickets and checkpoints; made if missing.

    Raises:
        ValueError: `out` holds another experiment's results.
    """
    records, console = Records(out, asdict(config), describe()), Console()
    done: list[Record] = []
    for record in _parts(config, splits, records):
        done.append(record)
        console.print(f"{record['name']}: accuracy {record['accuracy']:.2f} %", highlight=False)
        write_atomically(out / "results.md", as_markdown(done).encode())
    console.print(as_markdown(done), soft_wrap=True, highlight=False)
    return done


def _parts(config: Experiment, splits: Splits, records: Records) -> Iterator[Record]:
    for part, run, data in ((config.family, FamilyRun, splits.train), (config.blocks, BlockShapesRun, splits)):
        for seed in part.seeds if part else ():
            yield from run(part, data, records, seed)()
