"""Options that several commands have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object in place of text.")]
Table = Annotated[Path | None, typer.Option(help="YAML with the columns, roles and samples of a table (docs/data.md).")]
Confined = Annotated[
    bool, typer.Option("--confined", help="Refuse recordings outside the file's own folder: for what strangers wrote.")
]
ModelFolder = Annotated[
    str | None, typer.Option(help="Folder or hub name of a model.", show_default="the shipped model")
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of hub models.")]
Device = Annotated[str, typer.Option(help="Where models run, such as cuda:0.")]
Precision = Annotated[str, typer.Option(help="fp32, or bf16 for bfloat16 autocast.")]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Let a model's YAML build classes from outside the package.")
]


def keep_little() -> None:
    """Let what runs for days hold few of the kernels that oneDNN makes for every length of a recording.

    By itself it keeps 1,024, some 55 MB, and hardly meets a length again. To be called before torch is imported.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")
