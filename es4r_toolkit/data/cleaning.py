"""The good dialogues of a manifest as a manifest of their own, and the others with the reasons."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from es4r_toolkit.data.manifest import ManifestReport
from es4r_toolkit.data.records import FieldError
from es4r_toolkit.data.responses import make_folder, write_text
from es4r_toolkit.errors import ConfigError


def split_names(manifests: Sequence[Path]) -> dict[str, Path]:
    """A name for each manifest: its file's, without the extension.

    Raises
    ------
    ConfigError
        If two have the same name.
    """
    names: dict[str, Path] = {}
    for path in manifests:
        if path.stem in names:
            raise ConfigError(path, f"has the name of {names[path.stem]}", "give files of different names")
        names[path.stem] = path
    return names


def write_clean(folder: Path, name: str, manifest: Path, report: ManifestReport) -> None:
    """Write ``<name>.clean.jsonl`` and, where anything was left out, ``<name>.rejects.jsonl``.

    Records keep every field they had; paths of recordings become relative to the folder. A reject holds the reason
    and its record, where the record could be read.

    Raises
    ------
    DialogueError
        If they cannot be written.
    """
    make_folder(folder)
    good = (moved(record.value, manifest.parent, folder) for record in report.records)
    _write(folder / f"{name}.clean.jsonl", good)
    rejects = (
        {**vars(rejection), "record": None if isinstance(record.value, FieldError) else record.value}
        for rejection, record in zip(report.rejected, report.refused, strict=True)
    )
    (folder / f"{name}.rejects.jsonl").unlink(missing_ok=True)
    if report.rejected:
        _write(folder / f"{name}.rejects.jsonl", rejects)


def moved(value: Mapping, source: Path, target: Path) -> dict:
    """A good record of a manifest in one folder, with its recordings named from another."""
    base = os.path.relpath(source, target)
    turns = [_turn(turn, base) for turn in value["dialogue_history"]]
    reply = value.get("response")
    return {**value, "dialogue_history": turns, **({} if reply is None else {"response": _turn(reply, base)})}


def _turn(turn: Mapping, base: str) -> dict:
    # An absolute path stays as it is.
    path = turn.get("audio_path")
    return {**turn, "audio_path": Path(base, path).as_posix()} if path is not None else dict(turn)


def _write(path: Path, lines: Iterable[Mapping]) -> None:
    # A rejected record may hold half a character, which only ASCII can carry.
    write_text(path, (json.dumps(line) + "\n" for line in lines))
