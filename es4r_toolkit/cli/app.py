"""The command that all others stand under."""

from __future__ import annotations

from typing import Annotated

import click
import typer
from typer.core import TyperGroup

from es4r_toolkit import __version__
from es4r_toolkit.cli.printing import complain
from es4r_toolkit.errors import ES4RError


class OneLineErrors(TyperGroup):
    """Prints a fault that a user can mend as one line on stderr, and exits 1."""

    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except ES4RError as error:
            complain(error)
            raise typer.Exit(1) from None


app = typer.Typer(
    name="es4r",
    cls=OneLineErrors,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"es4r-toolkit {__version__}")
        raise typer.Exit


@app.callback()
def es4r(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Hear how something is said, and answer with empathy.

    Exit status: 0 good, 1 the input is bad, 2 wrong usage.

    \b
    Example:
      es4r validate dialogues.jsonl && es4r respond dialogues.jsonl --output answers
    """
