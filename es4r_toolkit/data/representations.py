"""Representations: what a model made of each turn, beside its predictions, for the cohesion ratio."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from es4r_toolkit.data.records import (
    FieldError,
    Record,
    Rejection,
    place_of,
    read_records,
    refuse_broken_values,
    type_name,
)
from es4r_toolkit.data.responses import write_text
from es4r_toolkit.errors import DialogueError

REPRESENTATIONS = "representations.jsonl"
MEND = "write {id, turns: {name: [a list of numbers for each turn]}}, the same names and sizes in every line"

# A kind of representation -> one array (turns, size) a dialogue.
Representations = dict[str, list[np.ndarray]]


def write_representations(folder: Path, dialogues: Iterable[tuple[str, dict[str, Sequence]]]) -> None:
    """Write ``representations.jsonl`` from ids and ``{name: (turns, size)}``, to five significant digits."""
    lines = []
    for name, kinds in dialogues:
        turns = {kind: [[float(f"{x:.5g}") for x in turn] for turn in vectors] for kind, vectors in kinds.items()}
        try:
            lines.append(json.dumps({"id": name, "turns": turns}, ensure_ascii=False, allow_nan=False) + "\n")
        except ValueError:
            problem = "has a representation that is not finite"
            raise DialogueError(name, problem, "look for a division by zero") from None
    write_text(folder / REPRESENTATIONS, "".join(lines))


def read_representations(path: str | Path) -> tuple[Representations, list[Rejection]]:
    """Read a .jsonl or .json file of ``{id?, turns}`` records.

    Returns
    -------
    dict
        Kind -> an array (turns, size) for each good record. The first good
        record says which kinds there are and of what size.
    list of Rejection

    Raises
    ------
    DialogueError
        If the file as a whole cannot be read.
    """
    found: Representations = {}
    rejected = []
    for record in read_records(path):
        item = place_of(path, record.line)
        if isinstance(record.value, dict) and isinstance(record.value.get("id"), str):
            item = record.value["id"]
        try:
            turns = _read_turns(record)
            _check_like(turns, found)
        except FieldError as fault:
            rejected.append(Rejection(item, record.line, fault.field, fault.problem, fault.mend))
            continue
        for kind, vectors in turns.items():
            found.setdefault(kind, []).append(vectors)
    return found, rejected


def _read_turns(record: Record) -> dict[str, np.ndarray]:
    if isinstance(record.value, FieldError):
        raise record.value
    if not isinstance(record.value, dict) or not isinstance(record.value.get("turns"), dict):
        raise FieldError("turns", "is no object", MEND)
    if not record.value["turns"]:
        raise FieldError("turns", "is empty", MEND)
    refuse_broken_values(record.value)
    turns = {kind: _read_vectors(f"turns.{kind}", vectors) for kind, vectors in record.value["turns"].items()}
    if len({len(vectors) for vectors in turns.values()}) > 1:
        raise FieldError("turns", "has not the same number of turns under each name", MEND)
    return turns


def _read_vectors(field: str, vectors: object) -> np.ndarray:
    if not isinstance(vectors, list) or not vectors:
        raise FieldError(field, f"is {type_name(vectors)}" if not isinstance(vectors, list) else "is empty", MEND)
    for place, vector in enumerate(vectors):
        if not isinstance(vector, list) or not vector or len(vector) != len(vectors[0]):
            raise FieldError(f"{field}[{place}]", "is no list of as many numbers as the first", MEND)
        strange = next((x for x in vector if isinstance(x, bool) or not isinstance(x, int | float)), None)
        if strange is not None:
            raise FieldError(f"{field}[{place}]", f"holds {type_name(strange)}", MEND)
    return np.array(vectors, dtype=float)


def _check_like(turns: dict[str, np.ndarray], found: Representations) -> None:
    if not found:
        return
    if turns.keys() != found.keys():
        raise FieldError("turns", f"names {sorted(turns)}, the first record {sorted(found)}", MEND)
    for kind, vectors in turns.items():
        size = found[kind][0].shape[1]
        if vectors.shape[1] != size:
            raise FieldError(f"turns.{kind}", f"has vectors of {vectors.shape[1]}, the first record of {size}", MEND)
