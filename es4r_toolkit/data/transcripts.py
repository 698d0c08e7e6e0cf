"""Transcripts of recordings that came without: written by a recognizer once, and kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from es4r_toolkit.data.audio import load_turn
from es4r_toolkit.data.records import read_lines
from es4r_toolkit.dialogue import Dialogue, Turn
from es4r_toolkit.protocols import Recognizer

TRANSCRIPTS = "transcripts.jsonl"


def write_down(
    dialogues: Sequence[Dialogue],
    recognizer: Recognizer,
    path: Path,
    progress: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> None:
    """Let a recognizer hear every recording without a transcript, and add a line for each to a file.

    Recordings that the file has already, by this recognizer, are not heard again.

    Arguments
    ---------
    dialogues : sequence of Dialogue
    recognizer : Recognizer
    path : Path
        A ``.jsonl`` file, made where it is missing.
    progress : callable
        Wraps the recordings, to show how far it is.
    """
    known = _known(path, recognizer)
    unwritten = {_name(turn): turn for one in dialogues for turn in one.history if not turn.is_written}
    missing = [name for name in unwritten if name not in known]
    if not missing:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for name in progress(missing):
            text = recognizer.transcribe(load_turn(unwritten[name], recognizer.sample_rate))
            file.write(json.dumps({"audio": name, "text": text, "recognizer": recognizer.identity}) + "\n")
            file.flush()


def with_transcripts(dialogues: Sequence[Dialogue], recognizer: Recognizer, path: Path) -> list[Dialogue]:
    """The dialogues with the words that ``write_down`` found."""
    known = _known(path, recognizer)

    def written(turn: Turn) -> Turn:
        return turn if turn.is_written else replace(turn, text=known[_name(turn)], recognizer=recognizer.name)

    return [replace(one, history=tuple(map(written, one.history))) for one in dialogues]


def _name(turn: Turn) -> str:
    """The recording of a turn, and which part of it."""
    whole = not turn.start and turn.stop is None
    return str(turn.audio) if whole else f"{turn.audio}#{turn.start:g}-{'' if turn.stop is None else f'{turn.stop:g}'}"


def _known(path: Path, recognizer: Recognizer) -> dict[str, str]:
    if not path.is_file():
        return {}
    if not path.read_bytes().endswith(b"\n"):
        # Killed within a line.
        path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8")
    return {line["audio"]: line["text"] for line in read_lines(path) if line["recognizer"] == recognizer.identity}
