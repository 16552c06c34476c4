"""The command `sparsemeta`. Each command is a function in a module of its own, added here by one line."""

from __future__ import annotations

import os
import sys

import typer

from sparsemeta.cli import bench, demo, info, ticket, train, tune

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)  # main() decides what an error looks like
app.command()(info.info)
app.command()(demo.demo)
app.command()(train.train)
app.command()(tune.tune)
app.add_typer(bench.app, name="bench")
app.add_typer(ticket.app, name="ticket")


@app.callback()
def _describe() -> None:
    """Lottery tickets for few-shot learning that pay in seconds."""


def main() -> None:
    """Run the command. Bad input ends in one line on stderr; a traceback is for bugs."""
    try:
        app()
    except (ValueError, OSError) as error:
        if os.environ.get("SPARSEMETA_TRACEBACK"):  # to find where such an error comes from
            raise
        sys.exit(f"sparsemeta: {error}")
