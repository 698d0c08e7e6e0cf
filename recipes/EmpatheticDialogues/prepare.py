"""EmpatheticDialogues as its owners publish it, spoken, to manifests:
python recipes/EmpatheticDialogues/prepare.py DATA --output MANIFESTS

The corpus is text. Who opens a conversation is its speaker, the other its listener, and a synthesizer speaks the
turns of each by voices of their own. Each reply of the listener becomes a sample with the turns before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from es4r_toolkit.data.preparing import SPLITS, Preparation, Sampling, Utterance, prepare_alone
from es4r_toolkit.data.published import find, require_folder, text_of
from es4r_toolkit.data.records import FieldError
from es4r_toolkit.data.speaking import CorpusSpeaker, Line
from es4r_toolkit.dialogue import ROLES
from es4r_toolkit.errors import ConfigError

COLUMNS = ("conv_id", "utterance_idx", "context", "prompt", "speaker_idx", "utterance", "selfeval", "tags")
# Candidates to choose from follow in some rows.
LENGTHS = (len(COLUMNS), len(COLUMNS) + 1)
VOICES = Path(__file__).parents[1] / "_shared" / "tts"
MEND = "take the table as it was published"
Conversations = dict[str, list[Utterance]]


def prepare(
    data_folder: str,
    manifests: str,
    speech_folder: str,
    synthesizer: str,
    voices: Mapping[str, Sequence[Mapping[str, Any]]],
    conversations: int | None,
    workers: int,
    samples: str,
    max_turns: int | None,
) -> None:
    """Write ``train.jsonl``, ``valid.jsonl`` and ``test.jsonl``, and ``rejects.jsonl`` where something is left out.

    Returns at once where they are there, made with the same settings; speaks no text twice.

    Arguments
    ---------
    data_folder : str
        What was unpacked: ``train.csv``, ``valid.csv`` and ``test.csv`` are looked for in all of it.
    manifests : str
        Where the manifests go.
    speech_folder : str
        Where the recordings go.
    synthesizer : str
        A fragment of ``recipes/_shared/tts``, or a YAML file of your own.
    voices : mapping
        For ``speaker`` and ``listener``, the voices of which each conversation has one: values of the fragment's keys.
    conversations : int or None
        How many of each split to take, from its beginning; None is all.
    workers : int
        Threads that speak.
    samples, max_turns
        As of ``Sampling``.

    Raises
    ------
    ConfigError
        If a table is missing, or a value breaks its rule.
    BackendError
        If a voice cannot speak.
    """
    sampling = Sampling("second", samples, max_turns)
    root = Path(data_folder)
    settings = {"data_folder": str(root.resolve()), "speech_folder": str(Path(speech_folder).resolve())}
    settings |= {"synthesizer": synthesizer, "voices": voices, "conversations": conversations, **vars(sampling)}
    work = Preparation("EmpatheticDialogues", manifests, settings)
    if work.done:
        return
    require_folder(root)
    tables = {split: find(root, f"{split}.csv") for split in SPLITS}
    if None in tables.values():
        missing = " and ".join(f"{split}.csv" for split, path in tables.items() if path is None)
        help_page = "see recipes/EmpatheticDialogues/README.md, Get the corpus"
        raise ConfigError("data_folder", f"{root} holds no {missing}", help_page)
    if set(voices) != set(ROLES):
        raise ConfigError("voices", f"are of {', '.join(voices)}", f"give voices of {' and '.join(ROLES)}")
    fragment = Path(synthesizer) if synthesizer.endswith(".yaml") else VOICES / f"{synthesizer}.yaml"
    speaker = CorpusSpeaker(fragment, voices, Path(speech_folder), workers)
    splits = {}
    for split, table in tables.items():
        read = list(_read(table, work).items())
        splits[split] = dict(read[:conversations])
    _speak([said for found in splits.values() for said in found.items()], sampling, speaker)
    for split, found in splits.items():
        for name, utterances in found.items():
            work.add(split, name, utterances, sampling)
    work.write()


def _read(table: Path, work: Preparation) -> Conversations:
    """The conversations of a table, their turns in order.

    Lines are split at every comma, as the authors' code does: commas of texts are written ``_comma_``, and a
    quotation mark is a quotation mark.
    """
    # Not splitlines(), which would part a text at a rare separator too.
    lines = text_of(table).replace("\r\n", "\n").split("\n")
    if tuple(lines[0].split(",")) != COLUMNS:
        raise ConfigError(table, f"begins with {lines[0][:80]!r}", f"its first line must be {','.join(COLUMNS)}")
    numbered: dict[str, dict[int, Utterance]] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        fields = line.split(",")
        place = f"{table.name}, line {number}"
        if len(fields) < 2 or not fields[0] or not fields[1].isdigit():
            work.leave_out(place, FieldError("utterance_idx", "is no number", MEND))
            continue
        turns = numbered.setdefault(fields[0], {})
        turn = int(fields[1])
        if turn in turns:
            work.leave_out(place, FieldError("utterance_idx", f"{turn} of {fields[0]} stands twice", MEND))
            continue
        turns[turn] = _utterance(fields, place)
    ordered = {name: [turns[turn] for turn in sorted(turns)] for name, turns in numbered.items()}
    for name, utterances in ordered.items():
        if not utterances[0].person:
            # Nobody can tell whose the other turns are.
            work.leave_out(f"{name}, {utterances[0].name}", utterances[0].fault)
    return {name: _with_emotions(utterances) for name, utterances in ordered.items() if utterances[0].person}


def _utterance(fields: list[str], place: str) -> Utterance:
    """The turn of a row; ``emotion`` is the conversation's."""
    name = fields[1]
    if len(fields) not in LENGTHS or not fields[4].isdigit():
        # A comma that was left as it is has shifted what follows it.
        problem = f"has {len(fields)} fields, and no speaker's number in the fifth" if len(fields) > 4 else "is cut off"
        return Utterance(name, "", "", fault=FieldError(place, problem, MEND))
    text = " ".join(fields[5].replace("_comma_", ",").split())
    fault = None if text else FieldError(place, "has no utterance", MEND)
    return Utterance(name, fields[4], text, emotion=fields[2] or None, fault=fault)


def _with_emotions(utterances: list[Utterance]) -> list[Utterance]:
    """The label is of what the speaker tells: on the turns of who opens the conversation."""
    opener = utterances[0].person
    return [one if one.person == opener else replace(one, emotion=None) for one in utterances]


def _speak(conversations: list[tuple[str, list[Utterance]]], sampling: Sampling, speaker: CorpusSpeaker) -> None:
    """Give each turn that stands in a history its recording, or the reason why it has none."""
    lines: dict[tuple[str, str], Line] = {}
    for name, utterances in conversations:
        answers = sampling.answers(utterances)
        for place in range(max(answers, default=0)):
            one = utterances[place]
            if one.fault is None:
                role = sampling.role(utterances, place, answers[-1])
                lines[name, one.name] = speaker.line(role, name, one.text)
    faults = speaker.speak(lines.values())
    for name, utterances in conversations:
        for place, one in enumerate(utterances):
            line = lines.get((name, one.name))
            if line is not None:
                utterances[place] = replace(one, audio=line.path, fault=faults.get(line.path))


if __name__ == "__main__":
    prepare_alone(prepare, Path(__file__).parent / "hparams" / "train.yaml")
