"""`python -m sparsemeta.bench.experiments CONFIG --out FOLDER`: an experiment, or what is left of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import torch
import typer
from sparsemeta.bench.experiments import anp, mwt
from sparsemeta.bench.experiments.results import Results
from sparsemeta.bench.experiments.setting import Setting

from sparsemeta.files import write_atomically

KINDS = {"mwt": mwt, "anp": anp}


def experiment(
    config: Annotated[Path, typer.Argument(help="A file in configs/find/.")],
    out: Annotated[Path, typer.Option(help="Folder to write to, and to go on from.")],
    data: Annotated[Path | None, typer.Option(help="Folder of the data set's files.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads, PyTorch's and the kernels'.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Only this of the config's seeds; may be repeated.")] = None,
) -> None:
    """Run an experiment from one configuration. Call it again after an interruption: it goes on where it was."""
    if threads:
        torch.set_num_threads(threads)
    setting = Setting.read(config, data, device)
    kind = KINDS[setting.tables["experiment"]["kind"]]
    check_folder(out, setting)
    for number in seed or setting.tables["experiment"]["seeds"]:
        kind.run(setting, out / f"seed-{number}", number, Results(out / f"seed-{number}.json"))
        results = {s: Results(out / f"seed-{s}.json") for s in setting.tables["experiment"]["seeds"]}
        text = kind.tables({s: found for s, found in results.items() if found})
        write_atomically(out / "tables.md", f"From `{config.name}`.\n\n{text}\n".encode())
    typer.echo((out / "tables.md").read_text())


def check_folder(out: Path, setting: Setting) -> None:
    """Raise `ValueError` where `out` holds an experiment of another configuration."""
    out.mkdir(parents=True, exist_ok=True)
    file, now = out / "config.json", json.loads(json.dumps(setting.tables))
    if file.exists() and (then := json.loads(file.read_text())) != now:
        changed = sorted(key for key in then | now if then.get(key) != now.get(key))
        raise ValueError(f"expected the configuration that {out} began with, got other {changed}; pass another --out")
    write_atomically(file, json.dumps(now, indent=1).encode())


if __name__ == "__main__":
    typer.run(experiment)
