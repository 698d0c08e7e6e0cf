"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object in place of text.")]
Table = Annotated[Path | None, typer.Option(help="YAML with the columns, roles and samples of a table (docs/data.md).")]
Confined = Annotated[
    bool, typer.Option("--confined", help="Refuse recordings outside the file's own folder: for what strangers wrote.")
]
