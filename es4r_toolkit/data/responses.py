"""Where answers are written: a folder for each dialogue, safe whatever its id holds."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from es4r_toolkit.data import audio
from es4r_toolkit.errors import DialogueError

if TYPE_CHECKING:
    from torch import Tensor

PREDICTIONS = "predictions.jsonl"
# File systems allow 255 bytes; this leaves room for a suffix and keeps listings readable.
LONGEST_NAME = 80


def folder_names(ids: Iterable[str]) -> dict[str, str]:
    """A folder name for each dialogue id.

    Letters, digits, ``-``, ``_`` and inner dots stay, everything else becomes ``_``, so no id leads out of the
    output folder. Names that would be the same, also on file systems that ignore case, are numbered.

    Example
    -------
    >>> folder_names(["7", "../7", "a b", "A_B"])
    {'7': '7', '../7': '_7', 'a b': 'a_b', 'A_B': 'A_B_2'}
    """
    names: dict[str, str] = {}
    taken = {PREDICTIONS}
    for dialogue in ids:
        base = re.sub(r"[^A-Za-z0-9._-]", "_", dialogue).strip(".")[:LONGEST_NAME].rstrip(".") or "dialogue"
        name, count = base, 1
        while name.lower() in taken:
            count += 1
            name = f"{base}_{count}"
        taken.add(name.lower())
        names[dialogue] = name
    return names


def write_response(folder: str | Path, answer: Mapping[str, object], waveform: Tensor, sample_rate: int) -> None:
    """Write ``response.wav`` and, when it stands, ``response.json`` into a folder that is made where missing.

    Arguments
    ---------
    folder : str or Path
        Where to.
    answer : mapping
        What `response.json` holds; JSON ready.
    waveform : Tensor (samples,)
        The speech.
    sample_rate : int
        Hz.

    Raises
    ------
    AudioError, DialogueError
        If the speech is unfit or the files cannot be written.
    """
    folder = Path(folder)
    make_folder(folder)
    audio.save(folder / "response.wav", waveform, sample_rate)
    write_json(folder / "response.json", answer)


def write_predictions(folder: Path, predictions: Iterable[Mapping[str, object]]) -> None:
    """Write the ``predictions.jsonl`` that `es4r evaluate` reads, whole or not at all."""
    lines = (json.dumps(prediction, ensure_ascii=False, allow_nan=False) + "\n" for prediction in predictions)
    write_text(folder / PREDICTIONS, "".join(lines))


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, where they are missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DialogueError(folder, f"cannot be made ({error.strerror})", "give another output folder") from None


def write_json(path: Path, value: object) -> None:
    """Write JSON, whole or not at all."""
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise DialogueError(path, f"cannot hold its values ({error})", "give finite numbers and text") from None
    write_text(path, text + "\n")


def write_text(path: Path, text: str | Iterable[str], sync: bool = False) -> None:
    """Write a UTF-8 file, whole or not at all; a long one piece by piece.

    With ``sync``, not even a power cut leaves anything between the two.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        # A lone surrogate cannot be encoded.
        with beside.open("w", encoding="utf-8") as file:
            file.writelines([text] if isinstance(text, str) else text)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(beside, path)
    except ValueError as error:
        raise DialogueError(path, f"cannot hold its values ({error})", "give finite numbers and text") from None
    except OSError as error:
        raise DialogueError(path, f"cannot be written ({error.strerror})", "give another output folder") from None
    finally:
        beside.unlink(missing_ok=True)
