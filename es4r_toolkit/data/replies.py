"""Replies of one system, and where each was spoken: what a listening test is made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from es4r_toolkit.data.records import (
    FieldError,
    Record,
    place_of,
    read_json,
    read_records,
    read_text,
    refuse_broken_values,
    text_field,
    type_name,
)
from es4r_toolkit.errors import DialogueError, ES4RError

ANSWER, SPEECH = "response.json", "response.wav"


@dataclass(frozen=True)
class Reply:
    """One reply.

    Attributes
    ----------
    id : str
        Of the dialogue it answers.
    text : str
        What was said; an empty reply is a bad reply, not a bad record.
    audio : Path or None
        How it was spoken.
    """

    id: str
    text: str
    audio: Path | None


def read_replies(source: str | Path) -> tuple[list[Reply], list[ES4RError]]:
    """Read the replies of one system.

    Arguments
    ---------
    source : str or Path
        A .jsonl or .json file of ``{id, response, audio_path?}`` records, or a folder that `es4r respond` wrote. A
        record without ``audio_path`` has the speech that `es4r respond` wrote beside the file for its ``id``.

    Returns
    -------
    replies : list of Reply
        In the order of the file; of a folder, in that of its names.
    faults : list of ES4RError
        One for each record left out.

    Raises
    ------
    DialogueError
        If the source as a whole cannot be read.

    Example
    -------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "predictions.jsonl").write_text('{"id": "7", "response": "I hear you."}')
    ...     read_replies(Path(folder, "predictions.jsonl"))
    ([Reply(id='7', text='I hear you.', audio=None)], [])
    """
    source = Path(source)
    if source.is_dir():
        answers, faults = _read_answers(source)
        if not answers and not faults:
            raise DialogueError(source, f"holds no */{ANSWER}", "give a folder that es4r respond wrote")
        return answers, faults
    found, faults = _read_file(source)
    if all(reply.audio for reply in found):
        return found, faults
    answers, broken = _read_answers(source.parent)
    spoken = {reply.id: reply.audio for reply in answers}
    return [replace(reply, audio=reply.audio or spoken.get(reply.id)) for reply in found], [*faults, *broken]


def _read_file(path: Path) -> tuple[list[Reply], list[ES4RError]]:
    found, faults = [], []
    for record in read_records(path):
        place = f"{path}, {place_of(path, record.line)}"
        try:
            found.append((place, _read_reply(record, path.parent)))
        except FieldError as fault:
            faults.append(_fault(place, fault))
    return _one_each(found, faults)


def _read_answers(folder: Path) -> tuple[list[Reply], list[ES4RError]]:
    """What `es4r respond` wrote into a folder."""
    found, faults = [], []
    for path in sorted(folder.glob(f"*/{ANSWER}")):
        try:
            found.append((str(path), _read_answer(path)))
        except FieldError as fault:
            faults.append(_fault(path, fault))
        except DialogueError as fault:
            faults.append(fault)
    return _one_each(found, faults)


def _one_each(found: list[tuple[str, Reply]], faults: list[ES4RError]) -> tuple[list[Reply], list[ES4RError]]:
    """The first reply to each dialogue, and a fault for any other."""
    places: dict[str, str] = {}
    replies = []
    for place, reply in found:
        if reply.id in places:
            problem = f"{reply.id!r} stands in {places[reply.id]} too"
            faults.append(_fault(place, FieldError("id", problem, "give each dialogue one reply")))
        else:
            places[reply.id] = place
            replies.append(reply)
    return replies, faults


def _fault(place: str | Path, fault: FieldError) -> DialogueError:
    return DialogueError(place, f"{fault.field} {fault.problem}", fault.mend)


def _read_reply(record: Record, folder: Path) -> Reply:
    if isinstance(record.value, FieldError):
        raise record.value
    if not isinstance(record.value, dict):
        raise FieldError("record", f"is {type_name(record.value)}, not an object", "write {id, response}")
    refuse_broken_values(record.value)
    name = text_field(record.value.get("id"), "id", "name the dialogue; replies are paired by it")
    recording = record.value.get("audio_path")
    if recording is not None:
        recording = folder / text_field(recording, "audio_path", "give the recording of the reply, or leave it out")
    return Reply(name, _said(record.value, "response"), recording)


def _read_answer(path: Path) -> Reply:
    answer = read_json(path, read_text(path))
    if not isinstance(answer, dict):
        raise FieldError("record", f"is {type_name(answer)}, not an object", "answer the dialogue again")
    refuse_broken_values(answer)
    name = text_field(answer.get("id"), "id", "answer the dialogue again with es4r respond")
    speech = path.with_name(SPEECH)
    return Reply(name, _said(answer, "text"), speech if speech.exists() else None)


def _said(record: dict, field: str) -> str:
    text = record.get(field)
    if not isinstance(text, str):
        problem = "is missing" if text is None else f"is {type_name(text)}, not a string"
        raise FieldError(field, problem, "write the reply as a string")
    return text
