"""The command `sparsemeta`. Each command is a function in a module of its own, added here by one line."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from sparsemeta.cli import adapt, bench, data, demo, evaluate, find, info, lambda_search, ticket, train, tune

STOPPED = 3  # exit status of a run that diverged or lost a process: it can be resumed, bad input (1) cannot

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)  # main() decides what an error looks like
app.command()(info.info)
app.command()(demo.demo)
app.command()(train.train)
app.command()(find.find)
app.command("eval")(evaluate.evaluate)
app.command()(adapt.adapt)
app.command()(lambda_search.lambda_search)
app.command()(tune.tune)
app.add_typer(bench.app, name="bench")
app.add_typer(data.app, name="data")
app.add_typer(ticket.app, name="ticket")


def _print_version(wanted: bool) -> None:
    if wanted:
        from sparsemeta import __version__

        typer.echo(f"sparsemeta {__version__}")
        raise typer.Exit


@app.callback()
def _describe(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Lottery tickets for few-shot learning that pay in seconds."""


def main() -> None:
    """Run the command. Bad input ends in one line on stderr; a traceback is for bugs."""
    try:
        app()
    except (ValueError, OSError) as error:
        if os.environ.get("SPARSEMETA_TRACEBACK"):  # to find where such an error comes from
            raise
        sys.exit(f"sparsemeta: {error}")
    except RuntimeError as error:
        from sparsemeta.meta import DivergenceError, RankError

        if not isinstance(error, (DivergenceError, RankError)) or os.environ.get("SPARSEMETA_TRACEBACK"):
            raise
        print(f"sparsemeta: {error}", file=sys.stderr)
        sys.exit(STOPPED)
