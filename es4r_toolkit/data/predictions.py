"""Predictions: replies of a model beside their references, as `es4r evaluate` reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from es4r_toolkit.data.records import (
    FieldError,
    Record,
    Rejection,
    place_of,
    read_records,
    refuse_broken_values,
    slots_field,
    text_field,
    type_name,
)
from es4r_toolkit.data.responses import PREDICTIONS
from es4r_toolkit.errors import DialogueError


@dataclass(frozen=True)
class Prediction:
    """One reply.

    Attributes
    ----------
    item : str
        Its ``id``, or its place where it has none.
    line : int
        Its line in a .jsonl file, its place in a .json file; from 1.
    response : str
        What the model said; an empty reply is a bad reply, not a bad record.
    reference : str
        What it should have said.
    slots : dict
        The values that the reply should express, where the corpus knows them.
    named : bool
        Whether the record has an ``id`` of its own.
    """

    item: str
    line: int
    response: str
    reference: str
    slots: dict[str, str] = field(default_factory=dict)
    named: bool = False


def predictions_in(source: Path) -> Path:
    """The file of predictions itself, or the one in a folder that `es4r respond` or a training wrote.

    Raises
    ------
    DialogueError
        If a folder holds none.
    """
    if not source.is_dir():
        return source
    if not (source / PREDICTIONS).is_file():
        mend = "answer dialogues that have responses, or give a file of replies with their references"
        raise DialogueError(source, f"holds no {PREDICTIONS}", mend)
    return source / PREDICTIONS


def read_predictions(path: str | Path) -> tuple[list[Prediction], list[Rejection]]:
    """Read a .jsonl or .json file of ``{response, reference, slots?}`` records.

    Raises
    ------
    DialogueError
        If the file as a whole cannot be read.
    """
    good, rejected = [], []
    for record in read_records(path):
        item = place_of(path, record.line)
        if isinstance(record.value, dict) and isinstance(record.value.get("id"), str):
            item = record.value["id"]
        try:
            good.append(_read_prediction(record, item))
        except FieldError as fault:
            rejected.append(Rejection(item, record.line, fault.field, fault.problem, fault.mend))
    return good, rejected


def _read_prediction(record: Record, item: str) -> Prediction:
    if isinstance(record.value, FieldError):
        raise record.value
    if not isinstance(record.value, dict):
        raise FieldError("record", f"is {type_name(record.value)}, not an object", "write {response, reference}")
    refuse_broken_values(record.value)
    response = record.value.get("response")
    if not isinstance(response, str):
        problem = "is missing" if response is None else f"is {type_name(response)}, not a string"
        raise FieldError("response", problem, "write the model's reply as a string")
    reference = text_field(record.value.get("reference"), "reference", "write the true reply as a string")
    slots, named = slots_field(record.value.get("slots")), isinstance(record.value.get("id"), str)
    return Prediction(item, record.line, response, reference, slots, named)
