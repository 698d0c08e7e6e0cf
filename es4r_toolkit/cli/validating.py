"""es4r validate."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from es4r_toolkit.cli.options import AsJson, Table
from es4r_toolkit.cli.printing import print_json, print_problems, progress


def validate(
    manifest: Annotated[Path, typer.Argument(help="Dialogues: a .jsonl, .json, .csv or .tsv file.")],
    decode: Annotated[
        bool, typer.Option("--decode", help="Decode every recording: finds missing ends and NaN samples.")
    ] = False,
    need_text: Annotated[
        bool, typer.Option(help="Reject turns without a transcript; off where a recognizer writes them down.")
    ] = True,
    table: Table = None,
    as_json: AsJson = False,
) -> None:
    """Check a manifest of dialogues and say what is wrong with which.

    \b
    Example:
      es4r validate data/dialogues.jsonl --decode
    """
    from es4r_toolkit.data.manifest import read_manifest
    from es4r_toolkit.data.tables import table_options

    bar = partial(progress, unit="dialogue")
    options = {} if table is None else {"table": table_options(table)}
    report = read_manifest(manifest, need_text=need_text, decode=decode, progress=bar, **options)
    if as_json:
        good = [dialogue.id for dialogue in report.dialogues]
        print_json({"good": good, "rejected": [vars(rejection) for rejection in report.rejected]})
    else:
        print_problems(report.rejected, manifest)
        typer.echo(f"{len(report.dialogues)} good, {len(report.rejected)} rejected")
    raise typer.Exit(1 if report.rejected else 0)
