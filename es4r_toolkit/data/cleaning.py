"""The good dialogues of a manifest as a manifest of their own, and the others with the reasons."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from es4r_toolkit.data.manifest import ManifestReport
from es4r_toolkit.data.records import FieldError, Record
from es4r_toolkit.data.responses import make_folder, write_text
from es4r_toolkit.dialogue import Dialogue
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

    Records keep every field they had, and dialogues their ids; paths of recordings become relative to the folder. A
    reject holds the reason and its record, where the record could be read.

    Raises
    ------
    DialogueError
        If they cannot be written.
    """
    make_folder(folder)
    good = list(zip(report.dialogues, report.records, strict=True))
    _write(folder / f"{name}.clean.jsonl", moved(good, manifest.parent, folder))
    rejects = (
        {**vars(rejection), "record": None if isinstance(record.value, FieldError) else record.value}
        for rejection, record in zip(report.rejected, report.refused, strict=True)
    )
    (folder / f"{name}.rejects.jsonl").unlink(missing_ok=True)
    if report.rejected:
        _write(folder / f"{name}.rejects.jsonl", rejects)


def moved(good: Sequence[tuple[Dialogue, Record]], source: Path, target: Path) -> Iterator[dict]:
    """Good dialogues of a manifest in one folder as the records of one in another.

    Recordings are named from there, and a dialogue keeps its id: that of one of several of a conversation holds its
    ``turn_id``, which would count for nothing where the others are left out.
    """
    base = os.path.relpath(source, target)
    left = Counter(str(record.value["conversation_id"]) for _, record in good)
    for dialogue, record in good:
        value = record.value
        conversation = str(value["conversation_id"])
        name = {} if left[conversation] > 1 or conversation == dialogue.id else {"conversation_id": dialogue.id}
        turns = [_turn(turn, base) for turn in value["dialogue_history"]]
        reply = {"response": _turn(value["response"], base)} if value.get("response") is not None else {}
        yield {**value, **name, "dialogue_history": turns, **reply}


def _turn(turn: Mapping, base: str) -> dict:
    # An absolute path stays as it is.
    path = turn.get("audio_path")
    return {**turn, "audio_path": Path(base, path).as_posix()} if path is not None else dict(turn)


def _write(path: Path, lines: Iterable[Mapping]) -> None:
    write_text(path, (_json(line) + "\n" for line in lines))


def _json(line: Mapping) -> str:
    text = json.dumps(line, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        # A rejected record may hold half a character, which only ASCII can carry.
        return json.dumps(line)
    return text
