"""`sparsemeta demo`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsemeta.cli.recipe_options import Threads


def demo(
    out: Annotated[Path, typer.Option(help="Folder for report.html, figures.json and ticket.safetensors.")] = Path(
        "runs/demo"
    ),
    data: Annotated[
        Path | None, typer.Option(help="Folder with Omniglot's two archives. Without it, images are drawn.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the initial weights and of the tasks.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Meta-steps of each network.")] = None,
    sparsity: Annotated[float, typer.Option(help="Fraction of the convolutions' weights to prune.")] = 0.8,
    quick: Annotated[bool, typer.Option("--quick", help="Tiny sizes, to see in seconds that it works.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the interrupted demo in OUT.")] = False,
    threads: Threads = None,
) -> None:
    """Meta-train a dense network and its ticket, and compare accuracy and seconds."""
    import torch  # here, so that `sparsemeta --help` does not wait for it

    from sparsemeta.demo import Settings
    from sparsemeta.demo import demo as run

    chosen = {"seed": seed, "sparsity": sparsity, "data": "omniglot" if data else "glyphs"}
    chosen |= {"steps": steps} if steps is not None else {}
    settings = Settings.quick(**chosen) if quick else Settings(**chosen)
    if threads:
        torch.set_num_threads(threads)
    run(settings, out, data, resume)
