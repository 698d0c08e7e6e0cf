"""Manifests: dialogues from a file, each checked, none dropped without a word."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from es4r_toolkit.data import audio
from es4r_toolkit.data.recordings import Part, Progress, Recording, Recordings, unseen
from es4r_toolkit.data.records import (
    FieldError,
    Record,
    Rejection,
    place_of,
    read_records,
    refuse_broken_values,
    seconds_field,
    slots_field,
    text_field,
    type_name,
)
from es4r_toolkit.data.tables import EXTENSIONS as TABLES
from es4r_toolkit.data.tables import TableOptions, read_table
from es4r_toolkit.dialogue import LISTENER, ROLES, SPEAKER, Dialogue, Turn
from es4r_toolkit.errors import AudioError

AS_THEY_STAND = TableOptions()
NEED_TEXT = "write what was said; the language model reads the text of every turn (a recognizer's will do)"


@dataclass(frozen=True)
class ManifestReport:
    """What a manifest holds.

    Attributes
    ----------
    dialogues : list of Dialogue
        The good ones, in the order of the file.
    rejected : list of Rejection
        One for each dialogue left out, with its first fault.
    elsewhere : int
        How many are of another split than the one asked for.
    records, refused : list of Record
        What the dialogues were read from, and what was left out, in the order of ``dialogues`` and ``rejected``.
    recordings : mapping of Part to Recording or AudioError
        What recordings were found to be, those of the dialogues sound; empty where they were not looked at.
    """

    dialogues: list[Dialogue]
    rejected: list[Rejection]
    elsewhere: int = 0
    records: list[Record] = field(default_factory=list)
    refused: list[Record] = field(default_factory=list)
    recordings: Mapping[Part, Recording | AudioError] = field(default_factory=dict)

    def seconds(self, dialogue: Dialogue) -> float:
        """How long the history of a dialogue lasts, of what was looked at."""
        parts = ((turn.audio, turn.start, turn.stop) for turn in dialogue.history)
        return sum(self.recordings[part].seconds for part in parts if part in self.recordings)


def read_manifest(
    path: str | Path,
    need_response: bool = False,
    need_text: bool = True,
    need_audio: bool = True,
    check_audio: bool = True,
    decode: bool = False,
    limits: audio.AudioLimits = audio.DEFAULT_LIMITS,
    progress: Progress = unseen,
    workers: int = 1,
    split: str | None = None,
    table: TableOptions = AS_THEY_STAND,
    confined: bool = False,
) -> ManifestReport:
    """Read dialogues and say of every one that is left out why.

    A dialogue's id is its ``conversation_id``; where that stands more than once with different ``turn_id``, it is
    ``<conversation_id>_<turn_id>``. Faulty entries count in this, so mending one renames no other.

    Arguments
    ---------
    path : str or Path
        A ``.jsonl`` file, one dialogue a line; a ``.json`` file with a list of dialogues or a single one; or a
        ``.csv`` or ``.tsv`` table with one utterance a row. Audio paths are relative to its folder.
    need_response : bool
        Whether a dialogue without ``response`` is rejected, as training wants.
    split : str, optional
        Take the dialogues of this split alone, and those that name none.
    table : TableOptions
        How a table is read.
    confined : bool
        Whether a recording outside the manifest's folder, by its path or by a link, is refused and not looked at: for
        manifests of strangers.
    need_text : bool
        Whether a turn of the history without ``utterance`` is rejected. Where a recognizer will write it down it may
        be left out; a text that is there and empty is rejected all the same.
    need_audio : bool
        Whether a turn of the history without ``audio_path`` is rejected. Where words alone are read it may be left out,
        and so may a table's column ``wav``.
    check_audio : bool
        Whether recordings must exist and have a header within the limits.
    decode : bool
        Whether they are decoded too, which finds missing ends and NaN samples.
    limits : AudioLimits
        What a recording may be.
    progress : callable
        Wraps what is gone through, given its ``unit`` and ``total`` too, to show how far reading is.
    workers : int
        How many processes look at recordings beforehand; 0 is one for each core, 1 is none but this.

    Raises
    ------
    DialogueError
        If the file as a whole cannot be read: missing, empty, not UTF-8, not JSON, of another extension.

    Example
    -------
    >>> import json, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     history = [{"role": "speaker", "utterance": "I failed.", "audio_path": "a.wav"}]
    ...     _ = Path(folder, "one.json").write_text(json.dumps({"conversation_id": "7", "dialogue_history": history}))
    ...     report = read_manifest(f"{folder}/one.json")
    >>> report.rejected[0].field, report.rejected[0].problem
    ('dialogue_history[0].audio_path', "'a.wav' does not exist")
    """
    path = Path(path)
    records = read_table(path, table, need_audio) if path.suffix.lower() in TABLES else read_records(path)
    ids = _dialogue_ids(records)
    check = _AudioCheck(path.parent, Recordings(limits, decode) if check_audio or decode else None, confined)
    if workers != 1:
        check.examine(records, workers, progress)
    need = _Need(need_response, need_text, need_audio)
    first_seen: dict[str, int] = {}
    report = ManifestReport([], [], recordings={} if check.recordings is None else check.recordings.found)
    elsewhere = 0
    for record in progress(records, unit="dialogue", total=len(records)):
        name = ids.get(id(record)) or record.name or place_of(path, record.line)
        try:
            record_id = _read_id(record)
            if name in first_seen:
                other = place_of(path, first_seen[name])
                problem = f"{record_id!r} (turn_id {record.value.get('turn_id')}) stands in {other} too"
                raise FieldError("conversation_id", problem, "give each dialogue its own conversation_id or turn_id")
            first_seen[name] = record.line
            refuse_broken_values(record.value)
            own = record.value.get("split")
            if own is not None and text_field(own, "split", "name a split, or leave it out") != (split or own):
                elsewhere += 1
                continue
            report.dialogues.append(_read_dialogue(record.value, name, need, check))
            report.records.append(record)
        except FieldError as fault:
            line = record.line_of(fault.field)
            report.rejected.append(Rejection(name, line, fault.field, fault.problem, fault.mend))
            report.refused.append(record)
    return replace(report, elsewhere=elsewhere)


def _dialogue_ids(records: list[Record]) -> dict[int, str]:
    """The dialogue's id of each record that names its conversation, by the record's identity."""
    turn_ids = defaultdict(set)
    named = {}
    for record in records:
        try:
            conversation = _read_id(record)
        except FieldError:
            continue
        named[id(record)] = conversation
        turn_ids[conversation].add(record.value.get("turn_id"))
    ids = {}
    for record in records:
        if (conversation := named.get(id(record))) is not None:
            turn = record.value.get("turn_id")
            repeated = len(turn_ids[conversation]) > 1 and turn is not None
            ids[id(record)] = f"{conversation}_{turn}" if repeated else conversation
    return ids


def _read_id(record: Record) -> str:
    if isinstance(record.value, FieldError):
        raise record.value
    if not isinstance(record.value, dict):
        raise FieldError("record", f"is {type_name(record.value)}, not an object", "write one dialogue as {...}")
    turn = record.value.get("turn_id")
    if turn is not None and type(turn) not in (int, str):
        raise FieldError("turn_id", f"is {type_name(turn)}", "write a whole number or a string")
    conversation = record.value.get("conversation_id")
    if type(conversation) is int:
        return str(conversation)
    return text_field(conversation, "conversation_id", "name the dialogue; the name must be its own")


@dataclass(frozen=True)
class _Need:
    """What a dialogue must have, and each turn of its history."""

    response: bool
    text: bool
    audio: bool


def _read_dialogue(value: dict, name: str, need: _Need, check: _AudioCheck) -> Dialogue:
    history = value.get("dialogue_history")
    if not isinstance(history, list):
        problem = "is missing" if history is None else f"is {type_name(history)}, not a list"
        raise FieldError("dialogue_history", problem, "write the turns so far as a list, oldest first")
    if not history:
        raise FieldError("dialogue_history", "is empty", "give at least one speaker turn")
    _check_order(value, history)
    turns = tuple(
        _read_turn(turn, f"dialogue_history[{index}]", check, need.text, need.audio)
        for index, turn in enumerate(history)
    )
    if not any(turn.is_speaker for turn in turns):
        raise FieldError(
            "dialogue_history", "has no speaker turn", "give at least one; a reply needs someone to answer"
        )
    response = value.get("response")
    if response is not None:
        response = _read_turn(response, "response", check, need_text=True, need_audio=False)
        if response.role != LISTENER:
            raise FieldError("response.role", f"is {response.role!r}", f"write {LISTENER}, who gives the reply")
    elif need.response:
        raise FieldError("response", "is missing", "give the listener's reply; training learns from it")
    return Dialogue(
        name, _with_speaker_emotion(value, turns), response, slots_field(value.get("slots")), value.get("split")
    )


def _with_speaker_emotion(value: dict, turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """``speaker_emotion`` of a dialogue is that of its newest speaker turn, unless the turn has a label of its own."""
    emotion = value.get("speaker_emotion")
    if emotion is None:
        return turns
    emotion = text_field(emotion, "speaker_emotion", "write a label, or leave the key out")
    newest = max(place for place, turn in enumerate(turns) if turn.is_speaker)
    if turns[newest].emotion is not None:
        return turns
    return (*turns[:newest], replace(turns[newest], emotion=emotion), *turns[newest + 1 :])


def _check_order(value: dict, history: list) -> None:
    """Where turns carry an index, each must be above the one before it, the response's above all."""
    before = None
    places = [(f"dialogue_history[{place}]", turn) for place, turn in enumerate(history)]
    for written, turn in [*places, ("response", value.get("response"))]:
        index = turn.get("index") if isinstance(turn, dict) else None
        if index is None:
            continue
        if type(index) is not int:
            raise FieldError(f"{written}.index", f"is {type_name(index)}", "write a whole number")
        if before is not None and index <= before:
            raise FieldError(f"{written}.index", f"is {index} after {before}", "put the turns in order, oldest first")
        before = index


def _read_turn(turn: object, field: str, check: _AudioCheck, need_text: bool, need_audio: bool) -> Turn:
    if not isinstance(turn, dict):
        raise FieldError(field, f"is {type_name(turn)}, not an object", "write role, utterance and audio_path")
    role = text_field(turn.get("role"), f"{field}.role", f"write {SPEAKER} or {LISTENER}")
    if role not in ROLES:
        raise FieldError(f"{field}.role", f"is {role!r}", f"write {SPEAKER} or {LISTENER}")
    text = turn.get("utterance")
    text = "" if text is None and not need_text else text_field(text, f"{field}.utterance", NEED_TEXT)
    emotion = turn.get("emotion")
    if emotion is not None:
        emotion = text_field(emotion, f"{field}.emotion", "write a label, or leave the key out")
    speaker = turn.get("speaker_id")
    if speaker is not None:
        speaker = text_field(speaker, f"{field}.speaker_id", "write who speaks, or leave the key out")
    start = seconds_field(turn.get("start"), f"{field}.start") or 0.0
    stop = seconds_field(turn.get("stop"), f"{field}.stop")
    recording = turn.get("audio_path")
    if need_audio or recording is not None:
        mend = "give the recording of the turn, relative to the manifest's folder"
        recording = check(text_field(recording, f"{field}.audio_path", mend), f"{field}.audio_path", start, stop)
    return Turn(role, text, recording, emotion, start=start, stop=stop, speaker_id=speaker)


class _AudioCheck:
    """Resolves audio paths, and holds recordings against the limits where they are looked at."""

    def __init__(self, folder: Path, recordings: Recordings | None, confined: bool):
        self.folder, self.recordings, self.confined = folder, recordings, confined
        # A path is costly to make and to keep, and histories of one conversation share theirs.
        self.paths: dict[str, Path] = {}

    def examine(self, records: list[Record], workers: int, progress: Progress) -> None:
        """Look at every recording that records name; what is written wrong is named when it is read."""
        if self.recordings is not None:
            self.recordings.examine(self._parts(records), workers, progress)

    def _parts(self, records: list[Record]) -> Iterator[Part]:
        for record in records:
            value = record.value if isinstance(record.value, dict) else {}
            history = value.get("dialogue_history")
            for turn in (*(history if isinstance(history, list) else ()), value.get("response")):
                if isinstance(turn, dict) and isinstance(written := turn.get("audio_path"), str):
                    try:
                        start, stop = (seconds_field(turn.get(name), name) for name in ("start", "stop"))
                    except FieldError:
                        continue
                    if self._may_be_read(path := self._path(written)):
                        yield path, start or 0.0, stop

    def _path(self, written: str) -> Path:
        if written not in self.paths:
            self.paths[written] = self.folder / written
        return self.paths[written]

    def _may_be_read(self, path: Path) -> bool:
        if not self.confined:
            return True
        try:
            return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self.folder))
        except ValueError:
            return False

    def __call__(self, written: str, field: str, start: float, stop: float | None) -> Path:
        path = self._path(written)
        if not self._may_be_read(path):
            raise FieldError(field, f"{written!r} leads out of the manifest's folder", "put the recording into it")
        if self.recordings is None:
            return path
        found = self.recordings[path, start, stop]
        spelled = _spelled_otherwise(self.folder, written) if isinstance(found, AudioError) else None
        if spelled is not None and self._may_be_read(spelled):
            path, found = spelled, self.recordings[spelled, start, stop]
        if isinstance(found, AudioError):
            mend = "write / in place of \\ in paths" if "\\" in written and not os.path.exists(path) else found.mend
            raise FieldError(field, f"{written!r} {found.problem}", mend)
        return path


def _spelled_otherwise(folder: Path, written: str) -> Path | None:
    """The same name with its accents composed or decomposed, where that is how a file system spells it."""
    # Path.exists would raise where a name is too long or a folder is closed.
    if not os.path.exists(folder / written):
        for form in ("NFC", "NFD"):
            path = folder / unicodedata.normalize(form, written)
            if os.path.exists(path):
                return path
    return None
